//! Incident packages (`assay.incident.*.v1`): one run of a pack, in the form that readers of incidents take.
//!
//! Health, kernel layer, decision log and policy go in byte for byte. The assessment lists every record and says what
//! that format's verifier derives itself, and no more: every surface is `unknown`, nothing is joined, nothing claimed.
//! How much of a surface was seen is for whoever relies on the package to state, with a context of their own.

use super::UnverifiedPack;
use super::manifest::is_archive_name;
use super::source::{Source, TEXT_LIMIT};
use crate::error::{Code, Error, Result};
use crate::evidence::archive::member;
use crate::evidence::contract::schema::{KERNEL_EVENT, KERNEL_EVENT_V1};
use crate::evidence::{Archive, strict};
use crate::files::{jcs, sha256};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Surfaces of the format, in its order.
const SURFACES: [&str; 5] = ["tool_call", "filesystem", "network", "process", "transcript_join"];

/// What the inventory may state of a package; here each is `not_available`, because no input of it says more.
const CONTEXT: [&str; 19] = [
    "original_digests",
    "chain_gaps",
    "custody",
    "producer_invocation",
    "clock",
    "actor",
    "correlation",
    "policy_activation",
    "recoverability",
    "resource_effects",
    "context_provenance",
    "denominator",
    "missing_evidence",
    "withholding_derivatives",
    "retention",
    "offline_verification",
    "signature_basis",
    "schema_versions",
    "windows",
];

/// What no such package says, in the format's own words.
const NON_CLAIMS: [&str; 3] = ["no_activity_completeness", "no_provider_outcome", "no_automatic_trust"];

/// The document of coverage that the format's verifiers know, by its digest.
const COVERAGE_SCHEMA: &str = "4453f216089543780bfecc4295cc4a61462fdc585b88d1e35b7d1aba79716b4a";

/// The largest of everything that the format allows; a package is made for readers that allow all of it.
const LIMITS: [(&str, u64); 29] = [
    ("outer_bytes", 268_435_456),
    ("members", 128),
    ("outer_path_bytes", 80),
    ("object_bytes_total", 251_658_240),
    ("inputs", 64),
    ("inner_compressed_bytes", 104_857_600),
    ("decoded_bytes_total", 536_870_912),
    ("nested_archive_depth", 1),
    ("inventory_bytes", 1_048_576),
    ("assessment_bytes", 16_777_216),
    ("policy_bytes", 1_048_576),
    ("transcript_bytes", 16_777_216),
    ("health_bytes", 1_048_576),
    ("envelope_bytes", 33_554_432),
    ("key_bytes", 16_384),
    ("retained_report_bytes", 16_777_216),
    ("inner_manifest_bytes", 10_485_760),
    ("inner_events_bytes", 524_288_000),
    ("records", 100_000),
    ("record_bytes", 1_048_576),
    ("inner_path_bytes", 256),
    ("json_depth", 64),
    ("json_key_bytes", 256),
    ("non_payload_string_bytes", 65_536),
    ("payload_string_bytes", 1_048_576),
    ("references", 100_000),
    ("reference_depth", 1),
    ("diagnostic_bytes", 4096),
    ("fresh_result_bytes", 16_777_216),
];

/// What one run gives to a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// `observation-health.json`.
    pub health: Vec<u8>,
    /// `layers/kernel.ndjson`.
    pub kernel: Vec<u8>,
    /// `policy-decisions.ndjson` and the policy that decided, where there is a policy layer.
    pub policy: Option<(Vec<u8>, Vec<u8>)>,
}

/// A package, and the context that it is verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The uncompressed tar.
    pub tar: Vec<u8>,
    /// The relying party's statement that the assessment names by its digest, in canonical JSON.
    pub context: Vec<u8>,
    /// Records that it lists.
    pub records: usize,
}

/// One object of a package.
struct Object<'a> {
    id: &'static str,
    format: &'static str,
    bytes: &'a [u8],
    sha256: String,
    surfaces: Vec<&'static str>,
    /// Lines that are actions: surface and the line's own value, with the place of the line.
    records: Vec<(&'static str, String, Value)>,
}

/// The package of run `run` of `gate`, of a pack that verifies.
///
/// # Errors
/// `PackInvalid` with the first thing that is wrong with the pack; `Usage` when it has no such run; `NotRepresentable`.
pub fn export(pack: &Path, gate: &str, run: u32) -> Result<Package> {
    let refused = |finding: super::Finding| {
        Error::new(Code::PackInvalid, format!("the pack does not verify: {finding}"))
            .at(pack.display())
            .hint(format!("assay-gates verify {}", pack.display()))
    };
    let verified = UnverifiedPack::open(pack).map_err(refused)?.verify().map_err(|findings| {
        findings
            .into_iter()
            .next()
            .map_or_else(|| Error::new(Code::Internal, "a pack was refused without a finding"), refused)
    })?;
    let source = Source::open(pack).map_err(refused)?;
    let folder = format!("payload/gates/{gate}/run-{run}/");
    let archive = source
        .members()
        .keys()
        .find(|path| path.strip_prefix(&folder).is_some_and(is_archive_name))
        .ok_or_else(|| {
            let known: Vec<&str> = verified.manifest().gates.iter().map(|row| row.gate.as_str()).collect();
            Error::new(Code::Usage, format!("the pack has no archive of run {run} of {gate}"))
                .at(pack.display())
                .hint(format!("its gates: {}", known.join(", ")))
        })?;
    let archive = source.read(archive, crate::evidence::archive::MAX_SOURCE).map_err(refused)?;
    let archive = Archive::from_bytes(&archive)?;
    let layer = |path: &str| archive.member(path).unwrap_or_default().to_vec();
    let policy = if archive.policy.is_empty() {
        None
    } else {
        let read = |path: String| source.read(&path, TEXT_LIMIT).map_err(refused);
        let decisions = read(format!("{folder}policy-decisions.ndjson"))?;
        Some((decisions, read(format!("payload/gates/{gate}/policy.yaml"))?))
    };
    let inputs = Inputs { health: layer(member::HEALTH), kernel: layer(member::KERNEL), policy };
    package(&inputs, &verified.manifest().created_at)
}

/// The package of these inputs; `as_of` is the UTC time that its context speaks of, with a `Z`.
///
/// # Errors
/// `NotRepresentable` when a line can't be written in the format.
pub fn package(inputs: &Inputs, as_of: &str) -> Result<Package> {
    let mut objects = Vec::new();
    if let Some((decisions, policy)) = &inputs.policy {
        objects.push(decisions_of(decisions)?);
        objects.push(Object::of("health", "assay-health-json", &inputs.health));
        objects.push(kernel_of(&inputs.kernel)?);
        objects.push(Object::of("policy", "policy-bytes", policy));
    } else {
        objects.push(Object::of("health", "assay-health-json", &inputs.health));
        objects.push(kernel_of(&inputs.kernel)?);
    }
    let context = document(&context(as_of))?;
    let assessment = document(&assessment(&objects, &context)?)?;
    let inventory = document(&inventory(&objects, &assessment))?;
    let records = objects.iter().map(|object| object.records.len()).sum();
    for (name, bytes, most) in [("assessment", &assessment, 16 << 20), ("inventory", &inventory, 1 << 20)] {
        if bytes.len() > most {
            let found = format!("expected an {name} of at most {most} bytes, found {}", bytes.len());
            return Err(Error::new(Code::NotRepresentable, found)
                .hint("export a run with fewer records: the format has room for no more"));
        }
    }
    Ok(Package { tar: tar(&inventory, &assessment, &objects)?, context, records })
}

/// Canonical JSON and a line feed: the form of every document of the format.
fn document(value: &Value) -> Result<Vec<u8>> {
    let mut text = jcs(value)?;
    text.push('\n');
    Ok(text.into_bytes())
}

impl<'a> Object<'a> {
    fn of(id: &'static str, format: &'static str, bytes: &'a [u8]) -> Self {
        Self { id, format, bytes, sha256: sha256(bytes).hex(), surfaces: Vec::new(), records: Vec::new() }
    }

    fn reference(&self, locator: &str) -> Value {
        json!({"input_id": self.id, "sha256": self.sha256, "locator": locator})
    }
}

fn decisions_of(bytes: &[u8]) -> Result<Object<'_>> {
    let mut object = Object::of("decisions", "proxy-decision-ndjson", bytes);
    object.surfaces = vec!["tool_call"];
    for (place, value) in lines(bytes, object.id)? {
        // Readers refuse what an earlier form of the log wrote.
        crate::evidence::schema::validate("assay.gates.tool_decision.v0", &value).map_err(|error| {
            Error::new(Code::NotRepresentable, error.message().to_owned())
                .at(format!("policy-decisions.ndjson, {place}"))
                .hint("measure again: this log is of an older build")
        })?;
        object.records.push(("tool_call", place, value));
    }
    Ok(object)
}

fn kernel_of(bytes: &[u8]) -> Result<Object<'_>> {
    let records = lines(bytes, "kernel")?;
    let schema = records.first().and_then(|(_, value)| value["schema"].as_str()).unwrap_or(KERNEL_EVENT);
    let format =
        if schema == KERNEL_EVENT_V1 { "runner-kernel-ndjson-v1" } else { "runner-kernel-ndjson-v0" };
    let mut object = Object::of("kernel", format, bytes);
    for (place, value) in records {
        let surface = match value["kind"].as_str().unwrap_or_default() {
            "openat" | "file_blocked" => "filesystem",
            "exec" => "process",
            _ => "network",
        };
        object.records.push((surface, place, value));
    }
    object.surfaces = SURFACES
        .into_iter()
        .filter(|surface| object.records.iter().any(|(found, ..)| found == surface))
        .collect();
    Ok(object)
}

/// The lines, each with its place as the format writes it: ordinal, offset and length in bytes.
fn lines(bytes: &[u8], id: &str) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    let mut offset = 0;
    for (ordinal, raw) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        let place = format!("line:{ordinal}:{offset}:{}", line.len());
        let value = strict::value(line)
            .map_err(|error| Error::new(Code::NotRepresentable, error).at(format!("{id}, {place}")))?;
        found.push((place, value));
        offset += raw.len();
    }
    Ok(found)
}

fn assessment(objects: &[Object<'_>], context: &[u8]) -> Result<Value> {
    let mut units = BTreeMap::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for object in objects {
        for (surface, place, value) in &object.records {
            let source = object.reference(place);
            let id = sha256(jcs(&json!([object.id, object.sha256, place]))?.as_bytes()).hex();
            let unit = json!({
                "id": id,
                "source": source,
                "surface": surface,
                "disposition": "examined",
                "result": {
                    "mode": "inline",
                    "value": {"operation": object.format, "source": source, "value": value},
                },
                "withheld_digest": null,
            });
            units.insert(id, unit);
            *counts.entry(surface).or_default() += 1;
        }
    }
    let inputs_of = |surface: &str| -> Vec<&str> {
        objects.iter().filter(|object| object.surfaces.contains(&surface)).map(|object| object.id).collect()
    };
    let surfaces: Vec<Value> = SURFACES
        .iter()
        .map(|surface| {
            json!({
                "name": surface,
                "source_inputs": inputs_of(surface),
                "observation": "unknown",
                "basis_refs": [],
                "window": null,
            })
        })
        .collect();
    let strata: Vec<Value> = SURFACES
        .iter()
        .filter(|surface| !inputs_of(surface).is_empty())
        .map(|surface| {
            let count = counts.get(surface).copied().unwrap_or_default();
            json!({
                "id": surface,
                "population": "retained supplied records",
                "basis": {"kind": "enumeration", "enumeration_method": "incident-v1-digest-locator-enumeration"},
                "eligible": count,
                "examined": count,
                "unexamined": [],
                "supports": ["positive_presence", "bounded_negative", "exhaustive_set"],
            })
        })
        .collect();
    let accounting = json!({
        "profile": "cap/1",
        "subject": {"kind": "collection", "ref": "incident-selected-inputs"},
        "integrity": {
            "complete": true,
            "statement": "accounting of selected supplied records",
            "capped_to": null,
        },
        "strata": strata,
    });
    Ok(json!({
        "schema": "assay.incident.assessment.v1",
        "verification_context_sha256": sha256(context).hex(),
        "units": units.into_values().collect::<Vec<_>>(),
        "surfaces": surfaces,
        "cap1": if strata.is_empty() { Value::Null } else { accounting },
        "joins": [],
        "claims": [],
        "resolved_results": [],
    }))
}

fn inventory(objects: &[Object<'_>], assessment: &[u8]) -> Value {
    let inputs: Vec<Value> = objects
        .iter()
        .map(|object| {
            json!({
                "id": object.id,
                "sha256": object.sha256,
                "bytes": object.bytes.len(),
                "format": object.format,
                "surfaces": object.surfaces,
                "binding": null,
            })
        })
        .collect();
    let context: Map<String, Value> = CONTEXT
        .iter()
        .map(|kind| ((*kind).to_owned(), json!({"value": null, "reason": "not_available", "refs": []})))
        .collect();
    json!({
        "schema": "assay.incident.inventory.v1",
        "assessment_sha256": sha256(assessment).hex(),
        "inputs": inputs,
        "context": context,
        "non_claims": NON_CLAIMS,
    })
}

/// What the package is verified with: every limit at its largest, no key, no expectation, nothing said of coverage.
fn context(as_of: &str) -> Value {
    let limits: Map<String, Value> =
        LIMITS.iter().map(|(name, most)| ((*name).to_owned(), Value::from(*most))).collect();
    json!({
        "schema_pin": COVERAGE_SCHEMA,
        "limits": limits,
        "keys": [],
        "expectations": [],
        "applicability": [],
        "as_of": as_of,
        "valid_from": as_of,
        "valid_until": as_of,
        "invocation": {"tool": "assay-gates", "version": env!("CARGO_PKG_VERSION"), "options": []},
    })
}

/// POSIX ustar: inventory, assessment, then each object once by its digest; no names of owners, no times.
fn tar(inventory: &[u8], assessment: &[u8], objects: &[Object<'_>]) -> Result<Vec<u8>> {
    let failed =
        |error: std::io::Error| Error::new(Code::Internal, format!("cannot build the package: {error}"));
    let by_digest: BTreeMap<&str, &[u8]> =
        objects.iter().map(|object| (object.sha256.as_str(), object.bytes)).collect();
    let mut members =
        vec![("inventory.json".to_owned(), inventory), ("assessment.json".to_owned(), assessment)];
    members.extend(by_digest.into_iter().map(|(digest, bytes)| (format!("objects/{digest}"), bytes)));
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path(&path).map_err(failed)?;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        unused_fields(&mut header);
        archive.append(&header, bytes).map_err(failed)?;
    }
    archive.into_inner().map_err(failed)
}

/// Device numbers are of no file here and stand as zero bytes; the sum is written as the format wants it, six digits.
fn unused_fields(header: &mut tar::Header) {
    let bytes = header.as_mut_bytes();
    bytes[329..345].fill(0);
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
