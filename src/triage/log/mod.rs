//! Workflow logs as they really are: several forms, zips with several layouts, missing step files, byte order marks in
//! the middle, lines without a time, colours, broken UTF-8, and a gibibyte of it.

mod dressing;
mod line;
mod scan;

pub use dressing::Dressing;
pub use line::{Line, Tag};
pub use scan::{Hit, Patterns, Scan, Sought, scan, scan_as};
