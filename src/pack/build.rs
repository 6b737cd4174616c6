//! From a proof root to a pack.

use super::claims;
use super::manifest::{self as m, FileRow, GateRow, GateStatus, Manifest, PathTree, Role, Subject};
use super::provenance::{BuildProvenance, Provenance, inputs};
use super::root::{ProofRoot, RootFile, claims_to_have_passed};
use super::source::Source;
use super::statement::{checksums, statement, subjects};
use super::zip_writer;
use crate::error::{Code, Error, Result};
use crate::files::{EntryKind, RootPath, Sha256Digest, pretty_sorted, sha256};
use crate::host::rights::Rights;
use chrono::{DateTime, SecondsFormat, Utc};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Rounds in which the manifest's own size must settle.
const ROUNDS: usize = 10;
/// Most subjects that an attestation can cover.
const SUBJECTS: usize = 1024;
/// Longest line of a gate's log that can be a PASS line.
const LINE: usize = 4096;

/// A pack that was built.
#[derive(Debug)]
pub struct ProofPack {
    /// Its folder.
    pub folder: PathBuf,
    /// Its zip, when one was asked for.
    pub zip: Option<PathBuf>,
    /// Its manifest.
    pub manifest: Manifest,
    /// Digest of the manifest: names the pack.
    pub manifest_sha256: Sha256Digest,
    /// What it may be cited for.
    pub claims: claims::Claims,
    /// What a reader should know: files left out, trees unknown, size above the soft cap.
    pub notes: Vec<String>,
}

/// Builds the pack of `root` as the folder `out`, and as the file `zip` too when that is given.
///
/// Gates that failed, were skipped or never ran are in it with that status. The same root and provenance give the same
/// bytes. `out` is replaced when it holds an earlier pack, and refused when it holds anything else.
///
/// # Errors
/// `PackRootInvalid`, `PackOutExists`, `PackTooLarge`, `Io`.
pub fn build(root: &Path, out: &Path, zip: Option<&Path>, provenance: &Provenance) -> Result<ProofPack> {
    if !root.is_dir() {
        return Err(Error::new(Code::PackRootInvalid, "expected a proof root (a folder), found none")
            .at(root.display())
            .hint("assay-gates run --gates all --root DIR"));
    }
    let at = |path| RootPath::of(path, Rights::own());
    let zip = zip.map(at).transpose()?;
    build_below(&RootPath::open(root, Rights::own())?, &at(out)?, zip.as_ref(), provenance)
}

/// As [`build`], from and to folders that are held.
///
/// # Errors
/// As [`build`].
pub fn build_below(
    root: &RootPath,
    out: &RootPath,
    zip: Option<&RootPath>,
    provenance: &Provenance,
) -> Result<ProofPack> {
    let state = ProofRoot::read(root)?;
    replaceable(out)?;
    let work = out.begin_folder()?;

    let (created_at, epoch) = created_at(&state, provenance)?;
    let mut rows = BTreeMap::new();
    for file in &state.files {
        let row = carry(file, &work)?;
        rows.insert(row.path.clone(), row);
    }
    same_object(&state, provenance)?;
    let object_digest = match &provenance.object {
        Some(object) => {
            let build = BuildProvenance::of(provenance, object, &created_at, epoch);
            for (path, bytes) in [
                (m::OBJECT_PATH, object.bytes.as_slice()),
                (m::BUILD_PROVENANCE_PATH, pretty_sorted(&build)?.as_bytes()),
            ] {
                rows.insert(path.to_owned(), write(&work, path, bytes)?);
            }
            Some((sha256(&object.bytes), object.bytes.len() as u64))
        }
        None => None,
    };
    let gates = state
        .gates
        .iter()
        .map(|(gate, status)| gate_row(root, &work, gate, *status, &rows))
        .collect::<Result<Vec<_>>>()?;
    let source = Source::folder(&work).map_err(|finding| {
        Error::new(Code::Internal, format!("a pack in the making is not readable: {finding}"))
    })?;
    let claims = claims::derive(&source, &gates.iter().map(Into::into).collect::<Vec<_>>());
    rows.insert(m::CLAIMS_PATH.to_owned(), write(&work, m::CLAIMS_PATH, pretty_sorted(&claims)?.as_bytes())?);

    let manifest = manifest(&state, provenance, created_at, gates, rows, object_digest)?;
    if manifest.proof_pack.subjects.len() + 1 > SUBJECTS {
        return Err(Error::new(
            Code::PackTooLarge,
            format!(
                "expected at most {SUBJECTS} subjects, as an attestation covers, found {}",
                manifest.proof_pack.subjects.len() + 1
            ),
        )
        .at(root.path().display())
        .hint("pack fewer gates at a time"));
    }
    let text = pretty_sorted(&manifest)?;
    let manifest_sha256 = sha256(text.as_bytes());
    let named = subjects(&manifest, manifest_sha256);
    let statement = statement(&manifest, &named, &provenance.event_name, &provenance.runner_environment);
    write(&work, m::MANIFEST_PATH, text.as_bytes())?;
    write(&work, m::CHECKSUMS_PATH, checksums(&named).as_bytes())?;
    write(&work, m::STATEMENT_PATH, pretty_sorted(&statement)?.as_bytes())?;

    work.put_in_place()?;
    if let Some(zip) = zip {
        zip_below(out, zip)?;
    }
    let notes = notes(&state, provenance, &manifest);
    Ok(ProofPack {
        folder: out.path(),
        zip: zip.map(RootPath::path),
        manifest,
        manifest_sha256,
        claims,
        notes,
    })
}

/// Writes the pack in `folder` as the file `zip`: the same bytes for the same files.
///
/// # Errors
/// `PackInvalid` when the folder holds what a pack can't; `Io`.
pub fn zip_folder(folder: &Path, zip: &Path) -> Result<()> {
    zip_below(&RootPath::open(folder, Rights::own())?, &RootPath::of(zip, Rights::own())?)
}

fn zip_below(folder: &RootPath, zip: &RootPath) -> Result<()> {
    let source = Source::folder(folder)
        .map_err(|finding| Error::new(Code::PackInvalid, finding.to_string()).at(folder.path().display()))?;
    zip_writer::write(folder, source.members(), zip)
}

/// The object whose provenance goes into the pack must be the one that measured.
fn same_object(state: &ProofRoot, provenance: &Provenance) -> Result<()> {
    let (Some(measured), Some(own)) = (&state.object_sha256, &provenance.object) else { return Ok(()) };
    let own = sha256(&own.bytes).to_string();
    if *measured == own {
        return Ok(());
    }
    Err(Error::new(
        Code::PackRootInvalid,
        format!("expected a root measured with the kernel programs of this build, {own}, found {measured}"),
    )
    .at("run.json#/object_sha256")
    .hint("pack with the binary that measured"))
}

fn replaceable(out: &RootPath) -> Result<()> {
    match out.kind()? {
        None => return Ok(()),
        Some(EntryKind::Folder) => {}
        Some(_) => return Err(occupied(&out.path(), "a file or a link")),
    }
    let head = || -> std::io::Result<String> {
        let mut text = String::new();
        let file = out.join(m::MANIFEST_PATH).expect_file().map_err(std::io::Error::other)?;
        file.take(4 * 1024 * 1024).read_to_string(&mut text)?;
        Ok(text)
    };
    if out.entries()?.is_empty() || head().is_ok_and(|text| text.contains(m::SCHEMA)) {
        Ok(())
    } else {
        Err(occupied(&out.path(), "other files"))
    }
}

fn occupied(out: &Path, found: &str) -> Error {
    Error::new(
        Code::PackOutExists,
        format!("expected no folder, an empty one or an earlier pack, found {found}"),
    )
    .at(out.display())
    .hint("choose another --out, or remove it")
}

/// Start of the invocation, as the manifest writes it and in seconds since 1970.
fn created_at(state: &ProofRoot, provenance: &Provenance) -> Result<(String, i64)> {
    let time = match (provenance.source_date_epoch, &state.started_at) {
        (Some(epoch), _) => DateTime::from_timestamp(epoch, 0),
        (None, Some(text)) => DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc)),
        // An invocation that never wrote its record has no time; the clock of the packer is not its time.
        (None, None) => Some(DateTime::UNIX_EPOCH),
    };
    let time = time.ok_or_else(|| {
        Error::new(
            Code::PackRootInvalid,
            format!(
                "expected a time like 2026-01-31T12:00:00Z, found {:?}",
                state.started_at.as_deref().unwrap_or("SOURCE_DATE_EPOCH out of range")
            ),
        )
        .at("run.json#/started_at")
    })?;
    Ok((time.to_rfc3339_opts(SecondsFormat::Secs, true), time.timestamp()))
}

/// Copies one file into the payload and digests it on the way.
fn carry(file: &RootFile, work: &RootPath) -> Result<FileRow> {
    let path = format!("payload/{}", file.path);
    let source = file.source.path();
    let failed = |error| Error::io("cannot copy into the pack", &source, error);
    let mut from = file.source.expect_file()?;
    let mut to = work.join(&path).create_file()?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(failed)?;
        bytes += count as u64;
    }
    let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
    let sha256 = digest.parse().map_err(|error: String| Error::new(Code::Internal, error))?;
    Ok(FileRow { path, bytes, sha256 })
}

fn write(work: &RootPath, path: &str, bytes: &[u8]) -> Result<FileRow> {
    let place = work.join(path);
    let mut file = place.create_file()?;
    file.write_all(bytes).map_err(|error| Error::io("cannot write", &place.path(), error))?;
    Ok(FileRow { path: path.to_owned(), bytes: bytes.len() as u64, sha256: sha256(bytes) })
}

fn gate_row(
    root: &RootPath,
    work: &RootPath,
    gate: &str,
    status: GateStatus,
    rows: &BTreeMap<String, FileRow>,
) -> Result<GateRow> {
    let prefix = format!("payload/gates/{gate}/");
    let with = |role: Role| {
        rows.values()
            .filter(|row| row.path.starts_with(&prefix) && Role::of(&row.path) == role)
            .cloned()
            .collect::<Vec<_>>()
    };
    let gate_log = rows.get(&format!("{prefix}gate.log")).cloned();
    let pass_lines = match &gate_log {
        Some(log) => {
            let place = work.join(&log.path);
            pass_lines(place.expect_file()?)
                .map_err(|error| Error::io("cannot read", &place.path(), error))?
        }
        None => Vec::new(),
    };
    let mut notes = Vec::new();
    if status == GateStatus::Incomplete && claims_to_have_passed(root, gate) {
        notes.push("passed gate did not leave runner archive tarballs".to_owned());
    }
    Ok(GateRow {
        gate: gate.to_owned(),
        status,
        archives: with(Role::RunnerArchive),
        selected_json: with(Role::GateJson),
        pass_lines,
        gate_log,
        notes,
    })
}

/// Lines that begin with `PASS:`, in constant memory whatever the log holds; other bytes than UTF-8 are never one.
///
/// # Errors
/// What the reader fails with.
pub(super) fn pass_lines(log: impl Read) -> std::io::Result<Vec<String>> {
    let mut reader = BufReader::with_capacity(64 * 1024, log);
    let mut found = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        if line.starts_with(b"PASS:")
            && let Ok(text) = std::str::from_utf8(&line)
        {
            found.push(text.trim_end_matches(['\n', '\r']).to_owned());
        }
        if line.last() != Some(&b'\n') {
            skip_line(&mut reader)?;
        }
    }
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let (used, done) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (buffer.len(), false),
        };
        reader.consume(used);
        if done {
            return Ok(());
        }
    }
}

fn manifest(
    state: &ProofRoot,
    provenance: &Provenance,
    created_at: String,
    gates: Vec<GateRow>,
    rows: BTreeMap<String, FileRow>,
    object: Option<(Sha256Digest, u64)>,
) -> Result<Manifest> {
    let inputs = inputs(provenance, &state.selection);
    let ebpf = rows.get(m::BUILD_PROVENANCE_PATH).cloned();
    let payload_bytes: u64 = rows.values().map(|row| row.bytes).sum();
    let payload_files: Vec<FileRow> = rows.into_values().collect();
    let mut manifest = Manifest {
        schema: m::SCHEMA.to_owned(),
        kind: m::KIND.to_owned(),
        claim_ceiling: m::CLAIM_CEILING.to_owned(),
        created_at,
        proof_pack: m::Subjects {
            schema: m::SCHEMA.to_owned(),
            subjects: all_subjects(&payload_files, object),
        },
        workflow: m::WorkflowFacts::of(&provenance.source, &inputs),
        source: provenance.source.clone(),
        inputs,
        content_provenance: m::ContentProvenance {
            path_trees: trees(provenance),
            source: ebpf.as_ref().map(|row| row.path.clone()),
        },
        verification_modes: m::VerificationModes {
            historical: m::MODE_HISTORICAL.to_owned(),
            current_state: m::MODE_CURRENT.to_owned(),
        },
        retention_days: m::RETENTION_DAYS,
        expected_size_policy: m::SizePolicy {
            soft_cap_bytes: m::SOFT_CAP_BYTES,
            action: m::SIZE_ACTION.to_owned(),
        },
        evidence_boundary: m::EvidenceBoundary {
            separate_from_normalized_runner_evidence: true,
            not_a_runner_emitted_artifact: true,
        },
        build_provenance: m::BuildProvenanceRow { ebpf },
        gates,
        payload_files,
        pack_size_bytes: payload_bytes,
    };
    // The manifest states a size that it is itself part of.
    for _ in 0..ROUNDS {
        let size = payload_bytes + pretty_sorted(&manifest)?.len() as u64;
        if size == manifest.pack_size_bytes {
            return Ok(manifest);
        }
        manifest.pack_size_bytes = size;
    }
    Err(Error::new(Code::Internal, "the size of the manifest did not settle"))
}

fn trees(provenance: &Provenance) -> BTreeMap<String, PathTree> {
    provenance.path_trees.clone()
}

/// The eBPF object first, then the payload in its order.
pub(super) fn all_subjects(payload: &[FileRow], object: Option<(Sha256Digest, u64)>) -> Vec<Subject> {
    let object = object.map(|(sha256, bytes)| Subject {
        path: m::OBJECT_SUBJECT.to_owned(),
        bytes,
        sha256,
        role: Role::EbpfObject,
    });
    object
        .into_iter()
        .chain(payload.iter().map(|row| Subject {
            path: format!("{}{}", m::UPLOAD_FOLDER, row.path),
            bytes: row.bytes,
            sha256: row.sha256,
            role: Role::of(&row.path),
        }))
        .collect()
}

fn notes(state: &ProofRoot, provenance: &Provenance, manifest: &Manifest) -> Vec<String> {
    let mut notes: Vec<String> = state
        .left_out
        .iter()
        .filter(|(_, why)| *why == "not part of a proof root" || why.contains("interrupted"))
        .map(|(path, why)| format!("left out {}: {why}", path.escape_debug()))
        .collect();
    notes.extend(
        provenance.unknown_trees().map(|(path, why)| format!("git tree of {path} is not known: {why}")),
    );
    if provenance.object.is_none() {
        notes.push(
            "no kernel object in this build of the tool: the pack states no build provenance".to_owned(),
        );
    }
    if manifest.pack_size_bytes > m::SOFT_CAP_BYTES {
        notes.push(format!(
            "{} bytes are above the soft cap of {}: {}",
            manifest.pack_size_bytes,
            m::SOFT_CAP_BYTES,
            m::SIZE_ACTION
        ));
    }
    notes
}
