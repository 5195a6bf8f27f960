//! How a report is shown: as a table, as JSON, as CSV, or live in a terminal.
//!
//! In: a `Report`. Out: text. It computes nothing that a reader could mistake
//! for a measurement: figures, shares and sums come with the report.
//!
//! Text that comes from the traced process (routes, methods, program names)
//! can hold anything; every output escapes what a terminal could act upon.

pub mod columns;
pub mod csv;
pub mod json;
pub mod live;
pub mod requests;
pub mod sort;
pub mod table;
pub mod text;
pub mod words;

pub use sort::Sort;
