//! What the fuzz targets share: arbitrary events, and captures of them.

pub mod captures;
pub mod conversation;
pub mod events;
pub mod exchanges;
