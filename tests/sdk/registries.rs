//! What is installed never depends on the day: local registries whose newest versions are not the locked ones.

use crate::measured::assay_gates;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

/// Answers by path; what is published later is there from then on.
#[derive(Clone)]
struct Registry {
    address: String,
    pages: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let registry = Self { address, pages: Arc::default() };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.answer(&stream));
            }
        });
        registry
    }

    fn answer(&self, mut stream: &std::net::TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut request = String::new();
        reader.read_line(&mut request).unwrap();
        let mut header = String::new();
        while reader.read_line(&mut header).is_ok_and(|read| read > 2) {
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let found = self.pages.lock().unwrap().get(path).cloned();
        let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
        let kind = match path {
            path if path.starts_with("/simple/") => "text/html",
            path if path.ends_with(".tgz") || path.ends_with(".whl") => "application/octet-stream",
            _ => "application/json",
        };
        let body = found.unwrap_or_else(|| b"{}".to_vec());
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }

    fn put(&self, path: String, bytes: Vec<u8>) {
        self.pages.lock().unwrap().insert(path, bytes);
    }

    /// A wheel in the simple index; gives its digest.
    fn wheel(&self, name: &str, version: &str, headers: &str) -> String {
        let file = format!("{name}-{version}-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let info = format!("{name}-{version}.dist-info");
        let members = [
            (format!("{name}/__init__.py"), format!("version = {version:?}\n")),
            (
                format!("{info}/METADATA"),
                format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{headers}\nA package.\n"),
            ),
            (
                format!("{info}/WHEEL"),
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
            ),
        ];
        let names: String = members.iter().map(|(path, _)| format!("{path},,\n")).collect();
        let record = (format!("{info}/RECORD"), format!("{names}{info}/RECORD,,\n"));
        for (path, text) in members.into_iter().chain([record]) {
            zip.start_file(path, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        let digest = hex::encode(Sha256::digest(&bytes));
        self.put(format!("/files/{file}"), bytes);
        let mut pages = self.pages.lock().unwrap();
        let page = pages.entry(format!("/simple/{name}/")).or_default();
        page.extend(format!("<a href=\"/files/{file}#sha256={digest}\">{file}</a>\n").bytes());
        digest
    }

    /// A package of npm's kind; gives its integrity.
    fn package(&self, name: &str, version: &str, manifest: &Value) -> String {
        let mut manifest = manifest.clone();
        manifest["name"] = name.into();
        manifest["version"] = version.into();
        let text = manifest.to_string();
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (path, text) in [("package/package.json", text.as_str()), ("package/index.js", version)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let bytes = tar.into_inner().unwrap().finish().unwrap();
        let integrity = format!("sha512-{}", STANDARD.encode(Sha512::digest(&bytes)));
        let path = format!("/{name}/-/{name}-{version}.tgz");
        self.put(path.clone(), bytes);
        manifest["dist"] = json!({"tarball": format!("{}{path}", self.address), "integrity": integrity});
        let mut pages = self.pages.lock().unwrap();
        let page = pages.entry(format!("/{name}")).or_insert_with(|| b"{}".to_vec());
        let mut document: Value = serde_json::from_slice(page).unwrap();
        document["name"] = name.into();
        document["versions"][version] = manifest;
        document["dist-tags"]["latest"] = version.into();
        *page = document.to_string().into_bytes();
        integrity
    }
}

/// A gate with these dependencies, in a folder of its own.
fn gate(folder: &Path, dependencies: &str) -> PathBuf {
    let gate = folder.join("gates/kernel-only");
    std::fs::create_dir_all(&gate).unwrap();
    let text = std::fs::read_to_string("gates/kernel-only/gate.yaml").unwrap();
    std::fs::write(gate.join("gate.yaml"), format!("{text}dependencies:\n{dependencies}")).unwrap();
    std::fs::copy("gates/kernel-only/agent.sh", gate.join("agent.sh")).unwrap();
    gate
}

fn install(folder: &Path, registry: &Registry) -> Output {
    let mut command = assay_gates(&folder.join("state"));
    command.args(["dependencies", "--install", "--gates-dir"]).arg(folder.join("gates"));
    command
        .env("PIP_INDEX_URL", format!("{}/simple/", registry.address))
        .env("PIP_NO_CACHE_DIR", "1")
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env_remove("PIP_FIND_LINKS")
        .env("npm_config_registry", &registry.address)
        .env("npm_config_cache", folder.join("npm-cache"));
    command.output().unwrap()
}

/// Digest of each file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                let digest = hex::encode(Sha256::digest(std::fs::read(entry.path()).unwrap()));
                found.insert(entry.path().strip_prefix(folder).unwrap().to_path_buf(), digest);
            }
        }
    }
    found
}

const PIP: &str = "  pip:\n    requirements: requirements.txt\n    target: site-packages\n    python: [\"3.11\", \"3.12\", \"3.13\", \"3.14\"]\n";
const APP: &str = "Requires-Dist: auth[online]>=1\nRequires-Dist: base\n";
const AUTH: &str = "Provides-Extra: online\nRequires-Dist: wire>=1; extra == 'online'\n";

#[test]
fn newer_versions_on_pypi_change_nothing_that_is_installed_not_even_under_an_extra() {
    let (folder, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let gate = gate(folder.path(), PIP);
    let packages = [("app", APP), ("auth", AUTH), ("base", ""), ("wire", "")];
    let lines: Vec<String> = packages
        .iter()
        .map(|(name, headers)| {
            format!("{name}==1.0 --hash=sha256:{}\n", registry.wheel(name, "1.0", headers))
        })
        .collect();
    std::fs::write(gate.join("requirements.txt"), lines.concat()).unwrap();
    let output = install(folder.path(), &registry);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let before = files(&gate.join("site-packages"));
    assert!(before.contains_key(Path::new("wire/__init__.py")), "{before:?}");

    for (name, headers) in packages {
        registry.wheel(name, "2.0", headers);
    }
    std::fs::remove_dir_all(gate.join("site-packages")).unwrap();
    let output = install(folder.path(), &registry);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(files(&gate.join("site-packages")), before);

    // A list that lacks what only an extra asks for is named as incomplete, and by whom.
    std::fs::write(gate.join("requirements.txt"), lines[..3].concat()).unwrap();
    let output = install(folder.path(), &registry);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("wire is missing, and auth[online] asks for wire>=1"), "{said}");
}

#[test]
fn another_file_under_a_locked_version_is_refused_with_what_helps() {
    let (folder, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let gate = gate(folder.path(), PIP);
    registry.wheel("base", "1.0", "");
    let other = hex::encode(Sha256::digest("another file"));
    std::fs::write(gate.join("requirements.txt"), format!("base==1.0 --hash=sha256:{other}\n")).unwrap();
    let output = install(folder.path(), &registry);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(13), "{said}");
    assert!(said.contains("the registry gave another file than the locked one"), "{said}");
}

#[test]
fn newer_versions_on_npm_change_nothing_and_a_package_that_npm_leaves_out_is_named() {
    let (folder, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let gate = gate(folder.path(), "  npm: {}\n");
    let needs = json!({"dependencies": {"deep": ">=1"}, "optionalDependencies": {"extra": ">=1"}});
    let lock = |extra: Value, integrities: [String; 3]| {
        let [app, deep, extra_integrity] = integrities;
        let mut entry = json!({"version": "1.0.0", "integrity": extra_integrity, "optional": true});
        entry["engines"] = extra["engines"].clone();
        let mut first = needs.clone();
        first["version"] = "1.0.0".into();
        first["integrity"] = app.into();
        json!({"name": "fixture", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {
            "": {"name": "fixture", "version": "1.0.0", "dependencies": {"first": "1.0.0"}},
            "node_modules/first": first,
            "node_modules/deep": {"version": "1.0.0", "integrity": deep},
            "node_modules/extra": entry,
        }})
        .to_string()
    };
    let manifest = json!({"name": "fixture", "version": "1.0.0", "dependencies": {"first": "1.0.0"}});
    std::fs::write(gate.join("package.json"), manifest.to_string()).unwrap();
    let any = json!({"engines": {"node": ">=12"}});
    let integrities = [
        registry.package("first", "1.0.0", &needs),
        registry.package("deep", "1.0.0", &json!({})),
        registry.package("extra", "1.0.0", &any),
    ];
    std::fs::write(gate.join("package-lock.json"), lock(any.clone(), integrities.clone())).unwrap();
    let output = install(folder.path(), &registry);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let before = files(&gate.join("node_modules"));
    assert!(before.contains_key(Path::new("extra/index.js")), "{before:?}");

    for (name, manifest) in [("first", &needs), ("deep", &json!({})), ("extra", &any)] {
        registry.package(name, "2.0.0", manifest);
    }
    std::fs::remove_dir_all(gate.join("node_modules")).unwrap();
    let output = install(folder.path(), &registry);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(files(&gate.join("node_modules")), before);

    // An engine that no node has: npm leaves the package out and says nothing.
    let none = json!({"engines": {"node": ">=99"}});
    let integrities =
        [integrities[0].clone(), integrities[1].clone(), registry.package("extra", "1.0.0", &none)];
    std::fs::write(gate.join("package-lock.json"), lock(none, integrities)).unwrap();
    let output = install(folder.path(), &registry);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(40), "{said}");
    assert!(
        said.contains("node_modules/extra 1.0.0 is locked and node_modules/first asks for it")
            && said.contains("node >=99"),
        "{said}"
    );
}
