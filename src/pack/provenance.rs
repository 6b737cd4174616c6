//! Where the measuring code came from: facts of the job, the repository and the embedded kernel programs.
//!
//! Everything comes in at the edge ([`Provenance::from_environment`]); building a pack only writes it down.
//! Outside a workflow the fields say `local`: such a pack is whole, and nobody should credit it to a repository.

use super::git;
use super::manifest::{Inputs, PathTree, SourceFacts};
use crate::files::{Sha256Digest, sha256};
use crate::host::rights::Rights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What stands in every field of [`SourceFacts`] that no workflow run has set.
pub const LOCAL: &str = "local";

/// What a pack says about its origin.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The job's facts.
    pub source: SourceFacts,
    /// `workflow_dispatch`, …; [`LOCAL`] outside.
    pub event_name: String,
    /// `self-hosted`, `github-hosted`; [`LOCAL`] outside.
    pub runner_environment: String,
    /// What the dispatch asked for; `None` when the selection of the run stands for it.
    pub input_gates: Option<String>,
    /// `true` when the dispatch asked for a build of the object in that run.
    pub build_ebpf: String,
    /// Git trees of the measuring code.
    pub path_trees: BTreeMap<String, PathTree>,
    /// The kernel programs of this binary, if it holds any.
    pub object: Option<BuiltObject>,
    /// Seconds since 1970 that replace the start of the invocation (`SOURCE_DATE_EPOCH`).
    pub source_date_epoch: Option<i64>,
}

/// The kernel programs and how they were compiled.
#[derive(Clone, Debug)]
pub struct BuiltObject {
    /// The ELF object, as loaded.
    pub bytes: Vec<u8>,
    /// First line of `clang --version`.
    pub compiler: String,
    /// Flags, in order.
    pub flags: String,
    /// Digests of the sources, by path in the repository.
    pub sources: BTreeMap<String, Sha256Digest>,
}

impl Provenance {
    /// Reads the facts of this job through `variable` (an environment lookup), git trees from `repository`.
    ///
    /// `event` is the text of the file that `GITHUB_EVENT_PATH` names, when there is one: it holds the inputs.
    #[must_use]
    pub fn gather(
        variable: impl Fn(&str) -> Option<String>,
        event: Option<&str>,
        repository: &Path,
        object: Option<BuiltObject>,
    ) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let in_workflow = set("GITHUB_ACTIONS").as_deref() == Some("true");
        let fact = |name: &str| set(name).filter(|_| in_workflow).unwrap_or_else(|| LOCAL.to_owned());
        let inputs: BTreeMap<String, serde_json::Value> = event
            .filter(|_| in_workflow)
            .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok())
            .and_then(|value| serde_json::from_value(value.get("inputs")?.clone()).ok())
            .unwrap_or_default();
        let input = |name: &str| {
            // The runner writes booleans of a dispatch as text or as JSON booleans, by version.
            inputs.get(name).map(|value| match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            })
        };
        let repository_name = fact("GITHUB_REPOSITORY");
        let run_id = fact("GITHUB_RUN_ID");
        let run_url = match set("GITHUB_SERVER_URL").filter(|_| in_workflow) {
            Some(server) => {
                format!("{}/{repository_name}/actions/runs/{run_id}", server.trim_end_matches('/'))
            }
            None => LOCAL.to_owned(),
        };
        let head_sha = match set("GITHUB_SHA").filter(|_| in_workflow) {
            Some(sha) => sha,
            None => git::head(repository).unwrap_or_else(|_| LOCAL.to_owned()),
        };
        Self {
            source: SourceFacts {
                workflow_path: workflow_path(&fact("GITHUB_WORKFLOW_REF"), &repository_name),
                repository: repository_name,
                head_sha,
                r#ref: fact("GITHUB_REF"),
                workflow_name: fact("GITHUB_WORKFLOW"),
                workflow_sha: fact("GITHUB_WORKFLOW_SHA"),
                run_id,
                run_attempt: fact("GITHUB_RUN_ATTEMPT"),
                run_url,
            },
            event_name: fact("GITHUB_EVENT_NAME"),
            runner_environment: fact("RUNNER_ENVIRONMENT"),
            input_gates: input("gates"),
            build_ebpf: input("build_ebpf")
                .unwrap_or_else(|| if in_workflow { "false".to_owned() } else { LOCAL.to_owned() }),
            path_trees: git::path_trees(repository),
            object,
            source_date_epoch: set("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok()),
        }
    }

    /// [`Provenance::gather`] of this process, with the checkout at `repository`.
    #[must_use]
    pub fn from_environment(repository: &Path) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        // A file of whoever started the job.
        let event = variable("GITHUB_EVENT_PATH")
            .and_then(|path| Rights::of_caller().and_then(|caller| caller.read_text(Path::new(&path))).ok());
        Self::gather(variable, event.as_deref(), repository, embedded_object())
    }

    /// Paths whose git tree is not known, and why.
    pub fn unknown_trees(&self) -> impl Iterator<Item = (&str, &str)> {
        self.path_trees.iter().filter_map(|(path, tree)| Some((path.as_str(), tree.error.as_deref()?)))
    }
}

fn embedded_object() -> Option<BuiltObject> {
    let object = crate::capture::embedded()?;
    let sources = object
        .sources
        .iter()
        .filter_map(|(path, hex)| Some(((*path).to_owned(), format!("sha256:{hex}").parse().ok()?)));
    Some(BuiltObject {
        bytes: object.bytes.to_vec(),
        compiler: object.compiler.to_owned(),
        flags: object.flags.to_owned(),
        sources: sources.collect(),
    })
}

/// `owner/name/.github/workflows/x.yml@refs/heads/main` to `.github/workflows/x.yml`.
fn workflow_path(workflow_ref: &str, repository: &str) -> String {
    let path = workflow_ref.split_once('@').map_or(workflow_ref, |(path, _)| path);
    path.strip_prefix(repository).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path).to_owned()
}

/// `assay-ebpf.provenance.json` (`assay.ci.ebpf_build_provenance.v0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildProvenance {
    /// `assay.ci.ebpf_build_provenance.v0`.
    pub schema: String,
    /// As in the manifest.
    pub created_at: String,
    /// The object.
    pub object: ObjectFacts,
    /// What it was built from.
    pub source: BuildSource,
    /// How.
    pub build: BuildFacts,
}

/// Schema id of [`BuildProvenance`].
pub const BUILD_SCHEMA: &str = "assay.ci.ebpf_build_provenance.v0";
/// `build.claim_ceiling`.
pub const BUILD_CEILING: &str = "build_provenance_only_not_runtime_behavior";

/// `object`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectFacts {
    /// Relative to the workspace.
    pub path: String,
    /// 64 hex digits, without a prefix.
    pub sha256: String,
    /// Length.
    pub size_bytes: u64,
    /// Of the pack's `created_at`: an embedded object has no time of its own.
    pub mtime_epoch: i64,
    /// The same.
    pub mtime_utc: String,
}

/// `source`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildSource {
    /// Commit.
    pub head_sha: String,
    /// Ref.
    pub r#ref: String,
    /// `owner/name`.
    pub repository: String,
    /// Display name.
    pub workflow: String,
    /// Commit of the workflow file.
    pub workflow_sha: String,
    /// Run.
    pub run_id: String,
    /// Attempt.
    pub run_attempt: String,
    /// As in the manifest.
    pub path_trees: BTreeMap<String, PathTree>,
}

/// `build`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildFacts {
    /// What built it.
    pub command: String,
    /// Where the compiler came from.
    pub toolchain_installer: String,
    /// [`BUILD_CEILING`].
    pub claim_ceiling: String,
    /// First line of `clang --version`.
    pub compiler: String,
    /// Flags, in order.
    pub flags: String,
    /// Digests of the sources.
    pub sources: BTreeMap<String, Sha256Digest>,
}

impl BuildProvenance {
    /// What is known of `object` at `created_at`.
    #[must_use]
    pub fn of(provenance: &Provenance, object: &BuiltObject, created_at: &str, epoch: i64) -> Self {
        let source = &provenance.source;
        Self {
            schema: BUILD_SCHEMA.to_owned(),
            created_at: created_at.to_owned(),
            object: ObjectFacts {
                path: super::manifest::OBJECT_SUBJECT.to_owned(),
                sha256: sha256(&object.bytes).hex(),
                size_bytes: object.bytes.len() as u64,
                mtime_epoch: epoch,
                mtime_utc: created_at.to_owned(),
            },
            source: BuildSource {
                head_sha: source.head_sha.clone(),
                r#ref: source.r#ref.clone(),
                repository: source.repository.clone(),
                workflow: source.workflow_name.clone(),
                workflow_sha: source.workflow_sha.clone(),
                run_id: source.run_id.clone(),
                run_attempt: source.run_attempt.clone(),
                path_trees: provenance.path_trees.clone(),
            },
            build: BuildFacts {
                command: "cargo build: build.rs compiles ebpf/ with clang and embeds the object".to_owned(),
                toolchain_installer: "the host's package manager".to_owned(),
                claim_ceiling: BUILD_CEILING.to_owned(),
                compiler: object.compiler.clone(),
                flags: object.flags.clone(),
                sources: object.sources.clone(),
            },
        }
    }
}

/// The inputs that the manifest records.
#[must_use]
pub fn inputs(provenance: &Provenance, selection: &str) -> Inputs {
    Inputs {
        gates: provenance.input_gates.clone().unwrap_or_else(|| selection.to_owned()),
        build_ebpf: provenance.build_ebpf.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(variables: &[(&str, &str)], event: Option<&str>) -> Provenance {
        let map: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Provenance::gather(
            |name| map.get(name).map(|value| (*value).to_owned()),
            event,
            Path::new("/nonexistent"),
            None,
        )
    }

    #[test]
    fn outside_a_workflow_every_fact_says_local_even_when_variables_are_set() {
        let facts =
            gather(&[("GITHUB_REPOSITORY", "a/b"), ("GITHUB_SERVER_URL", "https://github.com")], None);
        let text = serde_json::to_value(&facts.source).unwrap();
        assert!(text.as_object().unwrap().values().all(|value| value == LOCAL), "{text}");
        assert_eq!(facts.build_ebpf, LOCAL);
    }

    #[test]
    fn a_dispatch_gives_its_inputs_whether_they_are_text_or_booleans() {
        let variables = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "o/n"),
            ("GITHUB_RUN_ID", "7"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_WORKFLOW_REF", "o/n/.github/workflows/gates.yml@refs/heads/main"),
        ];
        for event in [
            r#"{"inputs":{"gates":"all","build_ebpf":true}}"#,
            r#"{"inputs":{"gates":"all","build_ebpf":"true"}}"#,
        ] {
            let facts = gather(&variables, Some(event));
            assert_eq!(facts.input_gates.as_deref(), Some("all"));
            assert_eq!(facts.build_ebpf, "true");
            assert_eq!(facts.source.workflow_path, ".github/workflows/gates.yml");
            assert_eq!(facts.source.run_url, "https://github.com/o/n/actions/runs/7");
        }
        assert_eq!(gather(&variables, None).build_ebpf, "false");
    }

    #[test]
    fn without_a_repository_each_tree_says_why_it_is_unknown() {
        let facts = gather(&[], None);
        assert_eq!(facts.unknown_trees().count(), git::CONTENT_PATHS.len());
        assert!(facts.unknown_trees().all(|(_, error)| !error.contains("/nonexistent") && !error.is_empty()));
    }
}
