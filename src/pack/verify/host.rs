//! What was found of the host before the first run: of its published shape, and not against what is said of the gates.

use super::Check;
use crate::evidence::{schema, strict};
use crate::pack::manifest::{DOCTOR_PATH, GateStatus};
use serde_json::Value;

const SCHEMA: &str = "assay.gates.doctor.v0";

impl Check<'_> {
    /// `payload/doctor.json`, where there is one: an invocation that measured nothing may have none.
    pub(super) fn host(&mut self) {
        if !self.source.members().contains_key(DOCTOR_PATH) {
            return;
        }
        let report = match self.source.text(DOCTOR_PATH) {
            Ok(text) => strict::value(text.as_bytes()),
            Err(finding) => return self.keep(finding),
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.fault("doctor", DOCTOR_PATH, "JSON, each key once", error),
        };
        match schema::faults(SCHEMA, &report) {
            Ok(faults) if faults.is_empty() => self.fitness(&report),
            Ok(faults) => {
                for fault in faults {
                    self.fault(
                        "doctor",
                        format!("{DOCTOR_PATH}{}", fault.place),
                        fault.expected,
                        fault.found,
                    );
                }
            }
            Err(error) => self.fault("doctor", DOCTOR_PATH, "a report that can be checked", error.message()),
        }
    }

    /// A host is fit when no check failed, and nothing is measured on one that isn't.
    fn fitness(&mut self, report: &Value) {
        let checks = report["checks"].as_array().map_or(&[][..], Vec::as_slice);
        let failed = checks.iter().find(|check| check["status"] == "FAIL");
        let fit = report["fit"] == true;
        if fit == failed.is_some() {
            let found = failed.map_or("none failed".to_owned(), |check| format!("{} failed", check["name"]));
            self.fault(
                "doctor",
                format!("{DOCTOR_PATH}#/fit"),
                "true when no check failed, else false",
                found,
            );
        }
        if let Some(gate) = self.manifest.gates.iter().find(|gate| gate.status == GateStatus::Passed)
            && !fit
        {
            let place = format!("payload/gates/{}", gate.gate);
            self.fault("doctor", place, "no gate that passed on a host that is not fit", "one");
        }
    }
}
