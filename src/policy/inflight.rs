//! Which requests are in flight, and whether a call had the server to itself.

use super::message::Id;
use std::collections::HashMap;

/// Requests that are followed at a time.
pub(super) const MOST: usize = 4096;

/// Requests of the caller that the server has not answered.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    open: HashMap<Id, Entry>,
    calls: u64,
    /// Something may be running that is not in `open`.
    untracked: bool,
}

#[derive(Debug)]
struct Entry {
    /// Number of the call; `None` for other requests.
    call: Option<u64>,
    /// The caller gave up; the server may still be at work.
    cancelled: bool,
}

/// Why a call can't be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfollowable {
    /// A request with the same id is in flight.
    SameId,
    /// [`MOST`] requests are in flight.
    TooMany,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Something other than calls was in flight when it began.
    pub(super) overlap: bool,
}

impl InFlight {
    /// A call is about to be forwarded.
    pub(super) fn call(&mut self, id: &Id, task: bool) -> Result<Begun, Unfollowable> {
        if let Some(entry) = self.open.get(id) {
            if !entry.cancelled {
                return Err(Unfollowable::SameId);
            }
            // The answer to the cancelled one could be taken for the answer to this.
            self.untracked = true;
            self.open.remove(id);
        }
        if !self.has_room() {
            return Err(Unfollowable::TooMany);
        }
        let overlap = self.untracked || task || self.open.values().any(|entry| entry.call.is_none());
        self.untracked |= task;
        self.calls += 1;
        self.open.insert(id.clone(), Entry { call: Some(self.calls), cancelled: false });
        Ok(Begun { number: self.calls, overlap })
    }

    /// The call was not forwarded after all.
    pub(super) fn withdrawn(&mut self, id: &Id) {
        self.open.remove(id);
    }

    /// Another request is about to be forwarded; true when that overlaps a call.
    pub(super) fn request(&mut self, id: Id) -> bool {
        if self.open.contains_key(&id) || !self.has_room() {
            self.untracked = true;
        } else {
            self.open.insert(id, Entry { call: None, cancelled: false });
        }
        self.open.values().any(|entry| entry.call.is_some())
    }

    /// The caller gave up on a request.
    pub(super) fn cancelled(&mut self, id: &Id) {
        if let Some(entry) = self.open.get_mut(id) {
            entry.cancelled = true;
        }
    }

    /// The server answered; gives the number of the call that ended, if it was one.
    pub(super) fn answered(&mut self, id: &Id, task: bool) -> Option<u64> {
        let call = self.open.remove(id)?.call;
        self.untracked |= task && call.is_some();
        call
    }

    /// Nothing is in flight that an answer could end.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn has_room(&mut self) -> bool {
        if self.open.len() >= MOST {
            let before = self.open.len();
            self.open.retain(|_, entry| !entry.cancelled);
            self.untracked |= self.open.len() < before;
        }
        self.open.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(number: usize) -> Id {
        Id::new(&json!(number)).unwrap()
    }

    fn begin(flights: &mut InFlight, number: usize) -> Begun {
        flights.call(&id(number), false).unwrap()
    }

    #[test]
    fn calls_one_after_another_do_not_overlap() {
        let mut flights = InFlight::default();
        for number in 1..4 {
            assert_eq!(begin(&mut flights, 7), Begun { number, overlap: false });
            assert_eq!(flights.answered(&id(7), false), Some(number));
            assert_eq!(flights.answered(&id(7), false), None, "a second answer ends nothing");
        }
    }

    #[test]
    fn calls_beside_each_other_are_no_overlap_with_anything_else() {
        let mut flights = InFlight::default();
        assert!(!begin(&mut flights, 1).overlap);
        assert!(!begin(&mut flights, 2).overlap);
        assert!(flights.request(id(3)));
        assert!(begin(&mut flights, 4).overlap);
    }

    #[test]
    fn a_call_beside_another_request_overlaps_either_way_round() {
        let mut flights = InFlight::default();
        assert!(!flights.request(id(1)));
        assert!(begin(&mut flights, 2).overlap);
        flights.answered(&id(1), false);
        flights.answered(&id(2), false);
        assert!(!begin(&mut flights, 3).overlap);
        assert!(flights.request(id(4)));
    }

    #[test]
    fn a_cancelled_request_may_still_be_running_until_it_is_answered() {
        let mut flights = InFlight::default();
        flights.request(id(1));
        flights.cancelled(&id(1));
        assert!(begin(&mut flights, 2).overlap);
        flights.answered(&id(2), false);
        flights.answered(&id(1), false);
        assert!(!begin(&mut flights, 3).overlap);
    }

    #[test]
    fn a_task_runs_on_after_its_answer() {
        let mut flights = InFlight::default();
        begin(&mut flights, 1);
        flights.answered(&id(1), true);
        assert!(begin(&mut flights, 2).overlap);
        let mut asked_for = InFlight::default();
        assert!(asked_for.call(&id(1), true).unwrap().overlap);
    }

    #[test]
    fn an_id_in_flight_is_not_used_twice() {
        let mut flights = InFlight::default();
        begin(&mut flights, 1);
        assert_eq!(flights.call(&id(1), false), Err(Unfollowable::SameId));
        flights.request(id(1));
        flights.answered(&id(1), false);
        assert!(begin(&mut flights, 2).overlap, "one of the two is still running");
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_counts_as_running() {
        let mut flights = InFlight::default();
        for number in 0..MOST {
            begin(&mut flights, number);
        }
        assert_eq!(flights.call(&id(MOST), false), Err(Unfollowable::TooMany));
        for number in 0..MOST {
            flights.cancelled(&id(number));
        }
        assert!(begin(&mut flights, MOST).overlap);
        assert_eq!(flights.open.len(), 1);
        flights.answered(&id(MOST), false);
        assert!(begin(&mut flights, 1).overlap);
    }
}
