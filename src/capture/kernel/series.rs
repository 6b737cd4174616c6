//! A quantity over the time of a run, in constant memory whatever the run's length.

use std::time::Duration;

/// Slots; when a run is longer, each covers twice the time.
const SLOTS: usize = 32;
/// Milliseconds of a slot at first.
const FINEST_MS: u64 = 10;

/// The largest value of each slot of time, from the start on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    slot_ms: u64,
    slots: Vec<u64>,
}

impl Default for Series {
    fn default() -> Self {
        Self { slot_ms: FINEST_MS, slots: Vec::with_capacity(SLOTS) }
    }
}

impl Series {
    /// Takes a value seen at `at` after the start.
    pub(super) fn add(&mut self, at: Duration, value: u64) {
        let ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        while ms / self.slot_ms >= SLOTS as u64 {
            self.slots = self.slots.chunks(2).map(|pair| pair.iter().copied().max().unwrap_or(0)).collect();
            self.slot_ms *= 2;
        }
        let slot = usize::try_from(ms / self.slot_ms).unwrap_or(SLOTS - 1);
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, 0);
        }
        self.slots[slot] = self.slots[slot].max(value);
    }
}

impl std::fmt::Display for Series {
    /// `20ms: 0 4096 0`: the width of a slot, then the slots.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}ms:", self.slot_ms)?;
        self.slots.iter().try_for_each(|value| write!(f, " {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_as_many_slots_as_a_short_one_and_keeps_each_peak() {
        let mut series = Series::default();
        series.add(Duration::from_millis(5), 7);
        series.add(Duration::from_millis(25), 3);
        assert_eq!(series.to_string(), "10ms: 7 0 3");
        series.add(Duration::from_secs(3600), 9);
        assert!(series.slots.len() <= SLOTS, "{series}");
        assert_eq!((series.slots[0], series.slots.last()), (7, Some(&9)));
    }
}
