//! That the runs are so many runs: each has canaries and kernel times of its own, and no two were measured at once.
//!
//! Copies of one run agree with each other whatever was measured. What can't be the same in two runs is the nonce of a
//! canary and the kernel's clock; a host measures one run at a time. Times of two boots, and so of two hosts, say nothing of
//! each other.

use super::Check;
use super::evidence::GateRun;
use crate::judge::RunEvidence;
use std::collections::{BTreeMap, BTreeSet};

/// The nonces that a complete proof names, in its environment.
const NONCES: [&str; 2] = ["canary.begin", "canary.end"];

impl Check<'_> {
    /// Every run of every gate against all others.
    pub(super) fn apart(&mut self, measured: &BTreeMap<&str, Vec<GateRun>>) {
        let mut nonces: BTreeMap<String, String> = BTreeMap::new();
        let mut times: BTreeMap<String, Vec<(u64, u64, String)>> = BTreeMap::new();
        for (gate, runs) in measured {
            let boots: BTreeSet<Option<&String>> = runs
                .iter()
                .filter_map(|run| Some(run.evidence.as_ref()?.proof.environment.get("boot_id")))
                .collect();
            if boots.len() > 1 {
                self.limits.push(format!(
                    "that the runs of {gate} were measured one after the other: their boots differ"
                ));
            }
        }
        for run in measured.values().flatten() {
            let Some(evidence) = &run.evidence else { continue };
            self.nonces(run, evidence, &mut nonces);
            if let Some((first, last)) = evidence.effects.times_ns {
                let host = evidence.proof.environment.get("boot_id").cloned().unwrap_or_default();
                times.entry(host).or_default().push((first, last, run.folder.clone()));
            }
        }
        for mut runs in times.into_values() {
            runs.sort();
            for pair in runs.windows(2) {
                if pair[1].0 <= pair[0].1 {
                    self.fault(
                        "run_times",
                        pair[1].2.clone(),
                        format!("kernel times of its own, after those of {}", pair[0].2),
                        format!("{} ns, when that one ran until {} ns", pair[1].0, pair[0].1),
                    );
                }
            }
        }
    }

    fn nonces(&mut self, run: &GateRun, evidence: &RunEvidence, seen: &mut BTreeMap<String, String>) {
        for name in NONCES {
            let place = format!("{}/capture_proof.json#/environment/{name}", run.folder);
            match evidence.proof.environment.get(name) {
                Some(nonce) if nonce.len() == 32 && nonce.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    if let Some(other) = seen.insert(nonce.clone(), place.clone()) {
                        self.fault("run_twice", place, format!("another canary than in {other}"), "the same");
                    }
                }
                Some(other) => self.fault("run_twice", place, "32 hex digits", other.clone()),
                None if evidence.proof.complete => {
                    self.fault("run_twice", place, "the nonce of a complete run's canary", "none");
                }
                None => {}
            }
        }
    }
}
