//! The decisions of one server's connection: kept in the driver's log, and each call's window in the kernel.

use super::Shared;
use crate::capture::CallWindow;
use crate::policy::{Begin, ConnectionName, Keeper};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// One server, and the calls that were let through to it.
#[derive(Debug)]
pub(super) struct Windows {
    shared: Arc<Shared>,
    /// Number of the server.
    server: u32,
    name: String,
    /// Number that the server's effects carry while calls are open; none when the kernel refused it.
    marked: Option<u64>,
    /// Open calls by the connection's number, with the index of their windows.
    open: BTreeMap<u64, usize>,
}

impl Windows {
    pub(super) fn new(shared: Arc<Shared>, server: u32, name: &ConnectionName) -> Self {
        let name = format!("{}/{}", name.server, name.number);
        Self { shared, server, name, marked: None, open: BTreeMap::new() }
    }

    /// Opens the window of a call. What can't be told apart is marked so; the call goes on in any case.
    fn begin(&mut self, begin: Begin) {
        let mut tally = self.shared.tally();
        let number = tally.windows.len() as u64 + 1;
        if self.open.is_empty() {
            self.marked = self.shared.marks.call(self.server, number).is_ok().then_some(number);
        }
        // Beside other calls the server's effects stay with the first: they are those of all of them.
        let group = self.marked.filter(|_| !self.open.is_empty());
        for index in self.open.values() {
            tally.windows[*index].group = group;
        }
        tally.windows.push(CallWindow {
            tool_call_id: begin.tool_call_id,
            tool: begin.tool,
            number,
            ambiguous: self.marked.is_none() || begin.overlap,
            group,
            server: self.name.clone(),
            id_rule: begin.id_rule,
        });
        let index = tally.windows.len() - 1;
        if let Some(replaced) = self.open.insert(begin.call, index) {
            tally.windows[replaced].ambiguous = true;
        }
    }

    /// Open calls can't be told from something else.
    fn blur(&self) {
        let mut tally = self.shared.tally();
        for index in self.open.values() {
            if let Some(window) = tally.windows.get_mut(*index) {
                window.ambiguous = true;
            }
        }
    }
}

impl Keeper for Windows {
    fn decision(&mut self, line: &str, call: Option<Begin>) -> io::Result<()> {
        self.shared.tally().append(line).map_err(io::Error::other)?;
        if let Some(begin) = call {
            self.begin(begin);
        }
        Ok(())
    }

    fn overlap(&mut self) {
        self.blur();
    }

    fn end(&mut self, call: u64) {
        let Some(index) = self.open.remove(&call) else { return };
        if self.open.is_empty()
            && self.shared.marks.call(self.server, 0).is_err()
            && let Some(window) = self.shared.tally().windows.get_mut(index)
        {
            window.ambiguous = true;
        }
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        // Whatever the server still does belongs to no call.
        if self.shared.marks.call(self.server, 0).is_err() {
            self.blur();
        }
    }
}
