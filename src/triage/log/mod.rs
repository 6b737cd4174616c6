//! Workflow logs as they really are: zips with several layouts, missing step files, byte order marks in the middle,
//! lines without a time, colours, broken UTF-8, and a gibibyte of it.

mod line;
mod scan;
mod zipped;

pub use line::{Line, Tag, parse};
pub use scan::{Hit, Patterns, Scan, scan};
pub use zipped::{LogFile, open_zip, read_zip};
