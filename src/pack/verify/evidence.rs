//! The archives: opened and recomputed one by one, and held against everything that the pack states of them.

use super::Check;
use crate::capture::CaptureProof;
use crate::error::Error;
use crate::evidence::archive::{examine, member};
use crate::evidence::filter::{Filter, FilterReport};
use crate::evidence::kernel::{KernelVersion, Normaliser};
use crate::evidence::origins::origins;
use crate::evidence::{Archive, EffectSurface, KernelSet, ToolEffects, effects, strict};
use crate::host::WORK;
use crate::judge::scenario::RunFiles;
use crate::judge::{self, EffectTotals, GateVerdict, RunArtifacts, RunEvidence};
use crate::pack::manifest::{GateRow, GateStatus};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::path::Path;

/// Largest archive that its own contract allows.
const ARCHIVE_LIMIT: u64 = 100 * 1024 * 1024;

impl Check<'_> {
    /// Every archive of every gate, then the verdicts and the references. Gives the number of archives that hold.
    pub(super) fn evidence(&mut self) -> usize {
        let mut measured = BTreeMap::new();
        let refs = self.collect_refs();
        let mut archives = 0;
        for gate in &self.manifest.gates {
            let mut runs = Vec::new();
            let mut run_ids = BTreeSet::new();
            for row in &gate.archives {
                let Some(archive) = self.archive(&row.path) else { continue };
                let folder = row.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                self.extracted(folder, &archive);
                self.logs(folder, &archive);
                let details = self.details(gate, folder, &archive);
                run_ids.insert(archive.run_id().to_owned());
                archives += 1;
                runs.push(GateRun::new(folder, archive, details));
            }
            if run_ids.len() > 1 {
                self.fault(
                    "run_id",
                    format!("payload/gates/{}", gate.gate),
                    "one run id for all runs of a gate",
                    run_ids.into_iter().collect::<Vec<_>>().join(", "),
                );
            }
            self.determinism(gate, &runs);
            measured.insert(gate.gate.as_str(), runs);
        }
        self.apart(&measured);
        self.judgement(&measured);
        self.refs_into_files(refs);
        archives
    }

    fn archive(&mut self, path: &str) -> Option<Archive> {
        let bytes = match self.source.read(path, ARCHIVE_LIMIT) {
            Ok(bytes) => bytes,
            Err(finding) => {
                self.keep(finding);
                return None;
            }
        };
        match examine(&bytes) {
            Ok(archive) => Some(archive),
            Err(findings) => {
                for finding in findings {
                    self.fault(
                        "archive",
                        format!("{path}!{}", finding.place),
                        finding.expected,
                        finding.found,
                    );
                }
                None
            }
        }
    }

    /// What stands beside an archive is what is in it, byte for byte.
    fn extracted(&mut self, folder: &str, archive: &Archive) {
        for name in [
            member::MANIFEST,
            member::SURFACE,
            member::CORRELATION,
            member::HEALTH,
            member::KERNEL,
            member::POLICY,
            member::SDK,
        ] {
            let path = format!("{folder}/extract/{name}");
            match self.source.read(&path, ARCHIVE_LIMIT) {
                Ok(bytes) if archive.member(name) == Some(bytes.as_slice()) => {}
                Ok(_) => self.fault("extract", path, format!("the bytes of {name} in the archive"), "others"),
                Err(finding) => self.keep(finding),
            }
        }
    }

    /// The files beyond v0: recomputed from the effects where they follow from them.
    fn details(&mut self, gate: &GateRow, folder: &str, archive: &Archive) -> Details {
        let run_id = archive.run_id();
        let proof: Option<CaptureProof> = self.typed(&format!("{folder}/capture_proof.json"));
        if let Some(proof) = &proof {
            let path = format!("{folder}/capture_proof.json");
            self.equal("capture_proof", &format!("{path}#/run_id"), run_id, &proof.run_id);
            self.equal(
                "capture_proof",
                &format!("{path}#/schema"),
                "assay.gates.capture_proof.v0",
                &proof.schema,
            );
            let decided = proof.policy_origin.as_deref().map(|origin| origin == "corroborated");
            if proof.origins != origins(decided, archive.health.sdk_layer != "absent") {
                let place = format!("{path}#/origins");
                self.fault(
                    "capture_proof",
                    place,
                    "the authors that follow from who decided and what was asked for",
                    "others",
                );
            }
            let broken = proof.invariants.iter().find(|one| !one.held);
            if proof.complete && (broken.is_some() || !proof.reasons.is_empty()) {
                self.fault(
                    "capture_proof",
                    format!("{path}#/complete"),
                    "a complete capture without a broken invariant or a reason against it",
                    broken.map_or_else(|| "a reason".to_owned(), |one| one.name.clone()),
                );
            }
            if gate.status == GateStatus::Passed && !proof.complete {
                self.fault(
                    "capture_proof",
                    format!("{path}#/complete"),
                    "a complete capture of a gate that passed",
                    "false",
                );
            }
        }
        let set: Option<KernelSet> = self.typed(&format!("{folder}/kernel_set.json"));
        let tools: Option<ToolEffects> = self.typed(&format!("{folder}/tool_effects.json"));
        let surface: Option<EffectSurface> = self.typed(&format!("{folder}/surface.json"));
        let filter: Option<FilterReport> = self.typed(&format!("{folder}/filter.json"));
        if let Some(set) = &set {
            self.equal("kernel_set", &format!("{folder}/kernel_set.json#/run_id"), run_id, &set.run_id);
        }
        let mut effects = None;
        if self.same_filter(gate, folder, filter.as_ref()) {
            let derived = self.rederive(
                folder,
                archive,
                set.as_ref(),
                (tools.as_ref(), surface.as_ref()),
                filter.as_ref(),
            );
            match derived {
                Ok(totals) => effects = totals,
                Err(error) => {
                    let place = error.place().unwrap_or(folder).to_owned();
                    self.fault(
                        "effects",
                        place,
                        "effects from which the evidence can be recomputed",
                        error.message(),
                    );
                }
            }
        }
        if let (Some(proof), Some(effects)) = (&proof, &effects) {
            for broken in judge::reconcile(proof, effects) {
                self.fault(
                    "counters",
                    format!("{folder}/capture_proof.json, {}", broken.name),
                    broken.expected,
                    broken.found,
                );
            }
        }
        let kernel_set = set.and_then(|set| serde_json::to_value(set).ok()).unwrap_or_default();
        Details { kernel_set, proof, tools, everything: surface, effects }
    }

    /// Whether a run's effects can be gone through again as they were: by this build's rules. Evidence that only other
    /// rules give is not shown to follow from the effects, and so lets no gate pass.
    fn same_filter(&mut self, gate: &GateRow, folder: &str, filter: Option<&FilterReport>) -> bool {
        let Some(filter) = filter else { return true };
        let path = format!("{folder}/filter.json");
        self.equal("filter", &format!("{path}#/work"), WORK, filter.work.as_deref().unwrap_or("none"));
        let own = Filter::digest();
        if filter.filter_sha256 == own {
            return true;
        }
        if gate.status == GateStatus::Passed {
            self.fault(
                "filter",
                format!("{path}#/filter_sha256"),
                format!("the filter of this build, {own}: what another release measured is verified with that release"),
                filter.filter_sha256.to_string(),
            );
        } else {
            self.limits.push(format!(
                "{folder}: its filter {} is not the one of this build, so its kernel layer could not be recomputed from its effects",
                filter.filter_sha256
            ));
        }
        false
    }

    fn rederive(
        &mut self,
        folder: &str,
        archive: &Archive,
        set: Option<&KernelSet>,
        (tools, surface): (Option<&ToolEffects>, Option<&EffectSurface>),
        filter: Option<&FilterReport>,
    ) -> Result<Option<EffectTotals>, Error> {
        let path = format!("{folder}/effects.ndjson");
        let source = self.source;
        let open = || {
            let reader = source.reader(&path).ok()?;
            Some(effects::read_from(BufReader::new(reader), Path::new(&path), Some(archive.run_id())))
        };
        let Some(lines) = open() else {
            self.fault("effects", path.clone(), "the recorded effects of the run", "none");
            return Ok(None);
        };
        let mut totals = EffectTotals::default();
        let rules = Filter::embedded()?;
        let work = Some(WORK);
        let mut normaliser =
            Normaliser::new(archive.run_id(), rules, work).version(KernelVersion::of_layer(&archive.kernel));
        for effect in lines {
            let effect = effect?;
            normaliser.take(&effect)?;
            totals.take(effect);
        }
        let derived = normaliser.finish();
        if let Some(place) = (0..derived.events.len().max(archive.kernel.len()))
            .find(|at| derived.events.get(*at) != archive.kernel.get(*at))
        {
            self.fault(
                "effects",
                format!("{path} and {}, line {}", member::KERNEL, place + 1),
                "the kernel event that follows from the effects",
                "another, or none",
            );
        }
        if let Some(set) = set
            && KernelSet::of(archive.run_id(), &derived.events, &derived.processes) != *set
        {
            self.fault(
                "kernel_set",
                format!("{folder}/kernel_set.json"),
                "the set that follows from the effects",
                "another",
            );
        }
        if let Some(filter) = filter
            && derived.tally.report(rules, archive.run_id(), work, derived.events.len() as u64) != *filter
        {
            self.fault(
                "filter",
                format!("{folder}/filter.json"),
                "the counts that follow from the effects",
                "others",
            );
        }
        if let Some(tools) = tools
            && let Some(lines) = open()
            && tools.rederived(work, lines, &archive.policy)? != *tools
        {
            self.fault(
                "tool_effects",
                format!("{folder}/tool_effects.json"),
                "the calls that follow from the effects",
                "others",
            );
        }
        if let (Some(tools), Some(surface), Some(lines)) = (tools, surface, open())
            && EffectSurface::of_effects(archive.run_id(), &tools.windows(), work, lines)? != *surface
        {
            self.fault(
                "surface",
                format!("{folder}/surface.json"),
                "the surface that follows from the effects",
                "another",
            );
        }
        Ok(Some(totals))
    }

    /// Runs of a passed gate agree, and the verdict's comparison is the one that the archives give.
    fn determinism(&mut self, gate: &GateRow, runs: &[GateRun]) {
        if runs.len() != gate.archives.len() || runs.is_empty() {
            return;
        }
        let path = format!("payload/gates/{}/verdict.json", gate.gate);
        let artifacts: Vec<RunArtifacts> = runs.iter().map(|run| run.artifacts.clone()).collect();
        let compared = match judge::compare(&artifacts) {
            Ok(compared) => compared,
            Err(error) => {
                return self.fault("determinism", path, "runs that can be compared", error.message());
            }
        };
        if gate.status == GateStatus::Passed
            && let Some(divergence) = &compared.divergence
        {
            let [a, b] = divergence.runs;
            self.fault(
                "determinism",
                format!("payload/gates/{}/run-{b}", gate.gate),
                format!("the same {} as in run {a}", divergence.artifact),
                "another",
            );
        }
        let verdict: Option<GateVerdict> =
            self.source.text(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
        if let Some(stated) = verdict.and_then(|verdict| verdict.determinism)
            && stated != compared
        {
            self.fault(
                "determinism",
                format!("{path}#/determinism"),
                "the comparison that the archives give",
                "another",
            );
        }
    }

    pub(super) fn typed<T: DeserializeOwned>(&mut self, path: &str) -> Option<T> {
        match self.source.text(path) {
            Ok(text) => match strict::typed(text.as_bytes()) {
                Ok(value) => Some(value),
                Err(error) => {
                    self.fault("detail", path, "a file of its schema", error);
                    None
                }
            },
            Err(finding) => {
                self.keep(finding);
                None
            }
        }
    }
}

/// What stands beside an archive; `None` where it could not be read, which is a finding already.
struct Details {
    kernel_set: Value,
    proof: Option<CaptureProof>,
    tools: Option<ToolEffects>,
    everything: Option<EffectSurface>,
    effects: Option<EffectTotals>,
}

/// A measured run as its files have it.
pub(super) struct GateRun {
    /// Its folder within the pack.
    pub folder: String,
    /// What runs are compared by.
    pub artifacts: RunArtifacts,
    /// What acceptance looks at; `None` when a file could not be read.
    pub evidence: Option<RunEvidence>,
    /// What a review looks at; `None` when a file could not be read.
    pub files: Option<RunFiles>,
}

impl GateRun {
    fn new(folder: &str, archive: Archive, details: Details) -> Self {
        let Details { kernel_set, proof, tools, everything, effects } = details;
        let artifacts = artifacts(&archive, kernel_set, everything.clone().unwrap_or_default());
        let evidence = match (&proof, &tools, everything, effects) {
            (Some(proof), Some(tools), Some(everything), Some(effects)) => {
                Some(RunEvidence::of(&archive, proof.clone(), tools, everything, effects))
            }
            _ => None,
        };
        let files = tools.zip(proof).map(|(tools, proof)| RunFiles::new(archive, tools, proof));
        Self { folder: folder.to_owned(), artifacts, evidence, files }
    }
}

fn artifacts(archive: &Archive, kernel_set: Value, effects: EffectSurface) -> RunArtifacts {
    let json = |name: &str| {
        archive.member(name).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    };
    let text = |name: &str| String::from_utf8_lossy(archive.member(name).unwrap_or_default()).into_owned();
    RunArtifacts {
        health: json(member::HEALTH),
        surface: json(member::SURFACE),
        correlation: json(member::CORRELATION),
        kernel_set,
        effects,
        policy: text(member::POLICY),
        sdk: text(member::SDK),
    }
}
