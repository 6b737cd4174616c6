//! From a proof root to a pack and back: what a pack carries, what it refuses, and what verification finds.

mod building;
mod fixture;
