//! All gates of a `gates/` folder.

use super::{Definition, Group, Selection, parse};
use crate::error::{Code, Error, Result};
use crate::files::nearest;
use crate::host::rights::Rights;
use std::path::{Path, PathBuf};

/// A definition and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What `gate.yaml` says.
    pub definition: Definition,
    /// `gate.yaml` as it was read.
    pub text: String,
    /// The `gate.yaml`, absolute.
    pub file: PathBuf,
}

impl Entry {
    /// The folder of the fixture.
    #[must_use]
    pub fn fixture(&self) -> PathBuf {
        let here = self.file.parent().unwrap_or(Path::new("/"));
        let folder = match &self.definition.fixture {
            Some(relative) => here.join(relative),
            None => here.to_path_buf(),
        };
        crate::files::normalise(&folder).unwrap_or(folder)
    }

    /// A measured program is shown its fixture whatever the modes of the folders above it: so it lies among the
    /// definitions, and not anywhere that a definition names.
    fn check_fixture(&self, gates: &Path) -> Result<()> {
        let fixture = self.fixture();
        let absolute = self.definition.fixture.as_ref().is_some_and(|folder| Path::new(folder).is_absolute());
        // Links are followed as far as there is anything.
        let real = fixture.canonicalize().unwrap_or_else(|_| fixture.clone());
        if !absolute && crate::files::contains(gates, &fixture) && crate::files::contains(gates, &real) {
            return Ok(());
        }
        Err(Error::new(
            Code::DefinitionInvalid,
            format!("fixture: expected a folder within {}, found {}", gates.display(), real.display()),
        )
        .at(self.file.display())
        .hint("name it relative to gate.yaml, or put the fixture beside it"))
    }
}

/// All gates, in the order of `all`, the others after it by id.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    folder: PathBuf,
    entries: Vec<Entry>,
}

impl Catalog {
    /// Reads every `gate.yaml` at most two levels below `folder` (`gates/<id>/`, `gates/scenarios/<id>/`).
    ///
    /// # Errors
    /// `DefinitionInvalid` for the first definition that doesn't validate or a name given twice; `Io`.
    pub fn load(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize().map_err(|error| {
            Error::io("cannot find the folder of gate definitions", folder, error)
                .hint("run it in a checkout that has gates/, or name one with --gates-dir")
        })?;
        let mut entries = Vec::new();
        for child in subfolders(&folder)? {
            let nested = if child.join("gate.yaml").is_file() { vec![child] } else { subfolders(&child)? };
            for gate in nested {
                let file = gate.join("gate.yaml");
                if file.is_file() {
                    let text = Rights::of_caller()?.read_text(&file)?;
                    let entry = Entry { definition: parse(&text, file.display())?, text, file };
                    entry.check_fixture(&folder)?;
                    entries.push(entry);
                }
            }
        }
        entries.sort_by(|a, b| {
            let key =
                |e: &Entry| (e.definition.group != Group::All, e.definition.order, e.definition.id.clone());
            key(a).cmp(&key(b))
        });
        let catalog = Self { folder, entries };
        catalog.check_names()?;
        Ok(catalog)
    }

    fn check_names(&self) -> Result<()> {
        let mut seen = std::collections::BTreeMap::new();
        for entry in &self.entries {
            for name in std::iter::once(&entry.definition.id).chain(&entry.definition.aliases) {
                if name == "all" {
                    return Err(Error::new(Code::DefinitionInvalid, "`all` can't name a gate")
                        .at(entry.file.display()));
                }
                if let Some(other) = seen.insert(name.clone(), &entry.file) {
                    return Err(Error::new(
                        Code::DefinitionInvalid,
                        format!("the name `{name}` is also taken by {}", other.display()),
                    )
                    .at(entry.file.display()));
                }
            }
        }
        for entry in &self.entries {
            let baseline =
                entry.definition.scenario.as_ref().and_then(|scenario| scenario.baseline.as_deref());
            if let Some(baseline) = baseline {
                self.get(baseline).map_err(|error| error.at(entry.file.display()))?;
            }
        }
        Ok(())
    }

    /// The folder that was read, absolute.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The part of it that `names` select, with baselines; all of it when there are none.
    ///
    /// # Errors
    /// As [`Catalog::select`].
    pub fn only(self, names: &[String]) -> Result<Self> {
        if names.is_empty() {
            return Ok(self);
        }
        let entries = self.select(names)?.gates;
        Ok(Self { entries, ..self })
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The gate of that id or alias.
    ///
    /// # Errors
    /// `GateUnknown`, with the nearest name as the hint.
    pub fn get(&self, name: &str) -> Result<&Entry> {
        let names =
            |entry: &Entry| entry.definition.id == name || entry.definition.aliases.iter().any(|a| a == name);
        self.entries.iter().find(|entry| names(entry)).ok_or_else(|| {
            let known: Vec<&str> = self.entries.iter().map(|entry| entry.definition.id.as_str()).collect();
            let aliases =
                self.entries.iter().flat_map(|entry| entry.definition.aliases.iter().map(String::as_str));
            let error = Error::new(Code::GateUnknown, format!("there is no gate `{name}`"));
            match nearest(name, known.iter().copied().chain(aliases)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None if known.is_empty() => self.empty(),
                None => error.hint(format!("the gates are: {}", known.join(", "))),
            }
        })
    }

    fn empty(&self) -> Error {
        Error::new(Code::NothingSelected, "no folder here has a gate.yaml")
            .at(self.folder.display())
            .hint("assay-gates gate init my-agent -- python3 agent.py, or --gates-dir with the folder that has them")
    }

    /// The gates that `names` select, each once, in the order of the catalog; `all` stands for the group of that name.
    ///
    /// # Errors
    /// `GateUnknown`; `NothingSelected` when `names` is empty.
    pub fn select(&self, names: &[String]) -> Result<Selection> {
        let mut chosen = Vec::new();
        for name in
            names.iter().flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty())
        {
            if name == "all" {
                chosen.extend(self.entries.iter().filter(|entry| entry.definition.group == Group::All));
            } else {
                chosen.push(self.get(name)?);
            }
        }
        let requested: Vec<&str> = chosen.iter().map(|entry| entry.definition.id.as_str()).collect();
        let entries: Vec<Entry> = self
            .entries
            .iter()
            .filter(|entry| requested.contains(&entry.definition.id.as_str()))
            .cloned()
            .collect();
        if self.entries.is_empty() {
            return Err(self.empty());
        }
        if entries.is_empty() {
            return Err(Error::new(Code::NothingSelected, "no gate was selected")
                .hint("assay-gates run --gate kernel-only, or --gates all"));
        }
        Selection::with_baselines(self, entries)
    }
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let listed = Rights::of_caller()?.act(|| Ok(std::fs::read_dir(folder)))?;
    for entry in listed.map_err(|error| Error::io("cannot list", folder, error))? {
        let entry = entry.map_err(|error| Error::io("cannot list", folder, error))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "node_modules" {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
