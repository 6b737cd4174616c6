//! From a proof root to a pack and back: what a pack carries, what it refuses, and what verification finds.

mod attesting;
mod building;
mod claiming;
mod fixture;
mod forging;
mod full_disk;
mod merging;
mod mutating;
#[path = "../evidence/fixtures.rs"]
#[expect(dead_code, reason = "shared with the tests of evidence")]
mod run;
mod spoiling;
mod zips;
