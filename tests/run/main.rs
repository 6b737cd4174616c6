//! The main job on the real kernel, as a user starts it.

#[path = "../support/mod.rs"]
mod support;

mod command_line;
mod full_disk;
mod interrupted;
mod kernel_only;
mod readme;
