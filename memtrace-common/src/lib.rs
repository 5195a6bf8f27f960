//! The interface between the kernel programs and the collector, defined once.
//!
//! Everything here is `no_std`, `#[repr(C)]` and asserted in size, because the
//! two sides are compiled by different compilers for different machines. It
//! holds shapes and limits only: no logic that could differ between the sides.
#![no_std]

pub mod config;
pub mod event;
pub mod limits;
pub mod loss;
