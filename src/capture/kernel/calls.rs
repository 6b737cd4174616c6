//! Tells the kernel programs which processes serve tools, and which call each server is working on.

use super::load::{missing, refused};
use crate::capture::CallMarks;
use crate::error::Result;
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maps of the object that hold both.
pub(super) struct Calls(Mutex<Maps>);

struct Maps {
    /// Process to the number of its server.
    servers: HashMap<MapData, u32, u32>,
    /// Server to the number of its call.
    calls: Array<MapData, u64>,
    /// The highest number of a server so far.
    highest: u32,
}

impl Calls {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let servers = ebpf.take_map("servers").ok_or_else(|| missing("servers"))?;
        let calls = ebpf.take_map("calls").ok_or_else(|| missing("calls"))?;
        let servers = HashMap::try_from(servers).map_err(|error| refused("cannot write servers", &error))?;
        let calls = Array::try_from(calls).map_err(|error| refused("cannot write calls", &error))?;
        Ok(Self(Mutex::new(Maps { servers, calls, highest: 0 })))
    }

    /// Forgets the servers and calls of a session before.
    pub(super) fn reset(&self) -> Result<()> {
        let mut maps = self.maps();
        let left: Vec<u32> = maps.servers.keys().filter_map(std::result::Result::ok).collect();
        for process in left {
            maps.servers.remove(&process).map_err(|error| refused("cannot write servers", &error))?;
        }
        for server in 0..=std::mem::take(&mut maps.highest) {
            maps.calls.set(server, 0, 0).map_err(|error| refused("cannot write calls", &error))?;
        }
        Ok(())
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

impl CallMarks for Calls {
    fn server(&self, process: u32, server: u32) -> Result<()> {
        let mut maps = self.maps();
        maps.highest = maps.highest.max(server);
        maps.servers.insert(process, server, 0).map_err(|error| refused("cannot write servers", &error))
    }

    fn call(&self, server: u32, call: u64) -> Result<()> {
        self.maps().calls.set(server, call, 0).map_err(|error| refused("cannot write calls", &error))
    }
}
