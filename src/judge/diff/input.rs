//! Where a side of a comparison stands on disk: an archive, its extracted members, a run's folder, a proof root or pack.

use super::side::Side;
use crate::error::{Code, Error, Result};
use crate::evidence::archive::{Finding, examine_members, member, read_bounded};
use crate::evidence::{Archive, ToolEffects, strict};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Verified evidence of one run.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Its documents.
    pub side: Side,
    /// `tool_effects.json`, when it stands beside.
    pub effects: Option<ToolEffects>,
}

impl Evidence {
    /// Opens what stands at `path`. A proof root or pack holds several gates: `gate` says which, and may be left out when
    /// there is one; its first run is taken, since the runs of a passed gate agree.
    ///
    /// # Errors
    /// `Io`; `EvidenceInvalid` when it doesn't verify, or is none of these.
    pub fn open(path: &Path, gate: Option<&str>) -> Result<Self> {
        if !path.is_dir() {
            let folder = path.parent().unwrap_or(Path::new("."));
            return Self::of_archive(&Archive::open(path)?, beside(folder)?.as_deref(), folder);
        }
        if let Some(gates) = folder_of_gates(path) {
            let names = gates_below(&gates)?;
            let names = names.iter().map(String::as_str).collect();
            let gate = chosen(&names, gate).map_err(|error| error.at(gates.display()))?;
            return Self::of_run(&gates.join(gate).join("run-1"));
        }
        if path.join(member::HEALTH).is_file() {
            return Self::of_extract(path);
        }
        Self::of_run(path)
    }

    /// The gates of the proof root or unpacked pack at `path`; none of anything else.
    ///
    /// # Errors
    /// `Io`.
    pub fn gates(path: &Path) -> Result<BTreeSet<String>> {
        folder_of_gates(path)
            .map_or_else(|| Ok(BTreeSet::new()), |gates| Ok(gates_below(&gates)?.into_iter().collect()))
    }

    /// Evidence in memory: an archive and, if there, its tool_effects.json.
    ///
    /// # Errors
    /// `EvidenceInvalid`.
    pub fn of_archive(archive: &Archive, effects: Option<&[u8]>, place: &Path) -> Result<Self> {
        let effects: Option<ToolEffects> = effects
            .map(|bytes| {
                strict::typed(bytes).map_err(|error| {
                    Error::new(Code::EvidenceInvalid, error).at(place.join("tool_effects.json").display())
                })
            })
            .transpose()?;
        if let Some(effects) = &effects
            && (effects.schema != ToolEffects::SCHEMA || effects.run_id != archive.run_id())
        {
            return Err(Error::new(
                Code::EvidenceInvalid,
                format!(
                    "expected {} of run {}, found {} of {}",
                    ToolEffects::SCHEMA,
                    archive.run_id(),
                    effects.schema,
                    effects.run_id
                ),
            )
            .at(place.join("tool_effects.json").display()));
        }
        Ok(Self { side: Side::of_archive(archive)?, effects })
    }

    fn of_run(folder: &Path) -> Result<Self> {
        let mut archives: Vec<PathBuf> =
            entries(folder)?.into_iter().filter(|path| is_archive(path)).collect();
        archives.sort();
        let [archive] = archives.as_slice() else {
            return Err(Error::new(
                Code::EvidenceInvalid,
                format!("expected one archive (runner-*.tar.gz), found {}", archives.len()),
            )
            .at(folder.display()));
        };
        Self::of_archive(&Archive::open(archive)?, beside(folder)?.as_deref(), folder)
    }

    /// The extracted members; when the layers were left out, as in a pack, the archive that stands above.
    fn of_extract(folder: &Path) -> Result<Self> {
        let mut members = BTreeMap::new();
        for name in member::ALL {
            let path = folder.join(name);
            if !path.is_file() {
                let above = folder.parent().unwrap_or(folder);
                return Self::of_run(above).map_err(|error| {
                    error.hint(format!("{} has no {name}, so its archive decides", folder.display()))
                });
            }
            members.insert(name, read_bounded(&path)?);
        }
        let (manifest, content) =
            examine_members(&members).map_err(|findings| match findings.into_iter().next() {
                Some(Finding { place, expected, found }) => {
                    Error::new(Code::EvidenceInvalid, format!("expected {expected}, found {found}"))
                        .at(folder.join(place).display())
                }
                None => Error::new(Code::Internal, "evidence was refused without a finding"),
            })?;
        let side = Side {
            health: content.health,
            surface: content.surface,
            correlation: content.correlation,
            agent_shim: content.started.agent_shim,
            sdk: content.sdk,
        }
        .checked()?;
        let above = folder.parent().unwrap_or(folder);
        let effects = beside(above)?
            .map(|bytes| strict::typed::<ToolEffects>(&bytes))
            .transpose()
            .map_err(|error| Error::new(Code::EvidenceInvalid, error).at(above.display()))?
            .filter(|effects| effects.run_id == manifest.run_id);
        Ok(Self { side, effects })
    }
}

fn folder_of_gates(path: &Path) -> Option<PathBuf> {
    [path.join("gates"), path.join("payload/gates")].into_iter().find(|path| path.is_dir())
}

fn is_archive(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("runner-") && name.ends_with(".tar.gz"))
}

fn beside(folder: &Path) -> Result<Option<Vec<u8>>> {
    let path = folder.join("tool_effects.json");
    if path.is_file() { read_bounded(&path).map(Some) } else { Ok(None) }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("cannot list", folder, error);
    std::fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

/// The names of the folders below `gates`.
fn gates_below(gates: &Path) -> Result<Vec<String>> {
    Ok(entries(gates)?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned))
        .collect())
}

/// The gate that was asked for, or the only one.
///
/// # Errors
/// `Usage`, with the choice to make.
pub fn chosen<'a>(gates: &BTreeSet<&'a str>, gate: Option<&str>) -> Result<&'a str> {
    let all = || gates.iter().copied().collect::<Vec<_>>().join(", ");
    let message = match gate {
        Some(gate) => match gates.get(gate) {
            Some(found) => return Ok(found),
            None => format!("expected one of the gates {}, found {gate}", all()),
        },
        None => match gates.first() {
            Some(only) if gates.len() == 1 => return Ok(only),
            _ => format!("expected a choice among {} gates, found none: {}", gates.len(), all()),
        },
    };
    Err(Error::new(Code::Usage, message).hint(format!("--gate {}", gates.first().unwrap_or(&"ID"))))
}
