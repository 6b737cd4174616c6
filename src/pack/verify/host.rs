//! What was found of the host before the first run: of its published shape, and not against what is said of the gates.
//!
//! Of a merged pack each shard's report stands with its record.

use super::Check;
use super::judgement::RECORD;
use crate::evidence::{schema, strict};
use crate::pack::manifest::{DOCTOR_PATH, GateStatus};
use serde_json::Value;

const SCHEMA: &str = "assay.gates.doctor.v0";

impl Check<'_> {
    /// Every report, and that each gate that passed has one: an invocation that measured nothing may have none.
    pub(super) fn host(&mut self) {
        let passed = self.manifest.gates.iter().filter(|gate| gate.status == GateStatus::Passed);
        let mut bare: Vec<String> = passed.map(|gate| gate.gate.clone()).collect();
        for (place, gates, report) in self.reports() {
            let fit = self.report(&place, &report);
            let mine = |gate: &String| gates.as_ref().is_none_or(|gates| gates.contains(gate));
            if let Some(gate) = bare.iter().find(|gate| mine(gate) && !fit) {
                let found = format!("payload/gates/{gate}");
                self.fault("doctor", found, "no gate that passed on a host that is not fit", "one");
            }
            bare.retain(|gate| !mine(gate));
        }
        for gate in bare {
            let place = format!("payload/gates/{gate}");
            self.fault("doctor", place, "a report on the host that the gate passed on", "none");
        }
    }

    /// Where each report stands, the gates that were measured there (all, when none are named), and what it says.
    fn reports(&mut self) -> Vec<(String, Option<Vec<String>>, Value)> {
        let mut reports = Vec::new();
        if self.source.members().contains_key(DOCTOR_PATH)
            && let Some(report) = self.strictly(DOCTOR_PATH)
        {
            reports.push((DOCTOR_PATH.to_owned(), None, report));
        }
        // What is wrong with the record is said where the verdicts are.
        let record = self.source.text(RECORD).ok().and_then(|text| strict::value(text.as_bytes()).ok());
        let shards = record.as_ref().and_then(|record| record.get("shards")).and_then(Value::as_array);
        for (at, shard) in shards.into_iter().flatten().enumerate() {
            let Some(report) = shard.get("doctor") else { continue };
            let names = |key: &str| shard.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            let gates = names("gates").iter().filter_map(|gate| gate.as_str().map(str::to_owned)).collect();
            reports.push((format!("{RECORD}#/shards/{at}/doctor"), Some(gates), report.clone()));
        }
        reports
    }

    fn strictly(&mut self, path: &str) -> Option<Value> {
        match self.source.text(path).map(|text| strict::value(text.as_bytes())) {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.fault("doctor", path, "JSON, each key once", error);
                None
            }
            Err(finding) => {
                self.keep(finding);
                None
            }
        }
    }

    /// Whether the host was fit: no check failed. A report that says another thing than its checks is refused.
    fn report(&mut self, place: &str, report: &Value) -> bool {
        match schema::faults(SCHEMA, report) {
            Ok(faults) => {
                for fault in faults {
                    self.fault("doctor", format!("{place}{}", fault.place), fault.expected, fault.found);
                }
            }
            Err(error) => self.fault("doctor", place, "a report that can be checked", error.message()),
        }
        let checks = report["checks"].as_array().map_or(&[][..], Vec::as_slice);
        let failed = checks.iter().find(|check| check["status"] == "FAIL");
        let fit = report["fit"] == true;
        if fit == failed.is_some() {
            let found = failed.map_or("none failed".to_owned(), |check| format!("{} failed", check["name"]));
            self.fault("doctor", format!("{place}#/fit"), "true when no check failed, else false", found);
        }
        fit && failed.is_none()
    }
}
