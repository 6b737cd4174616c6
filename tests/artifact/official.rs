//! Beside the official client: the same upload, request by request; and our upload, downloaded by it.

use crate::harness::{NAME, request, run, token, zip_of};
use crate::server::{Recorded, Server};
use assay_gates::github::artifact::Timeouts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with both clients; a test that can't run says so, and fails where skipping is forbidden.
fn clients() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/artifact/official");
    let ready = folder.join("node_modules/artifact-v4").is_dir()
        && Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    if ready {
        return Some(folder);
    }
    assert!(
        std::env::var_os("ASSAY_GATES_NO_SKIP").is_none(),
        "npm ci --prefix tests/artifact/official is needed"
    );
    eprintln!("SKIPPED: node, or the packages in tests/artifact/official, are missing (make test-tools)");
    None
}

fn node(clients: &Path, server: &Server, script: &str, arguments: &[&str]) -> Value {
    let output = Command::new("node")
        .current_dir(clients)
        .arg(script)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("ACTIONS_RESULTS_URL", &server.address)
        .env("ACTIONS_RUNTIME_TOKEN", token().reveal())
        .env("GITHUB_SERVER_URL", "https://github.com")
        .env("GITHUB_WORKSPACE", clients)
        .env("GITHUB_RETENTION_DAYS", "90")
        .env("GITHUB_REPOSITORY", "owner/name")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().rfind(|line| line.starts_with("{\"result\"")).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str::<Value>(line).unwrap()["result"].clone()
}

/// What two clients' requests of one step must have in common: everything but the values that differ by nature.
fn form(request: &Recorded) -> Value {
    /// Set by each HTTP library in its own way; none is part of the protocol.
    const LIBRARY: [&str; 6] =
        ["host", "accept", "accept-encoding", "connection", "user-agent", "content-length"];
    let mut headers: BTreeMap<String, String> = request.headers.clone();
    headers.retain(|name, _| !LIBRARY.contains(&name.as_str()));
    for free in ["x-ms-client-request-id", "x-ms-version"] {
        if let Some(value) = headers.get_mut(free) {
            assert!(!value.is_empty());
            "<any>".clone_into(value);
        }
    }
    if let Some(kind) = headers.get_mut("content-type") {
        *kind = kind.replace("; charset=UTF-8", "");
    }
    assert_eq!(
        request.headers.get("content-length").map(String::as_str),
        Some(request.length.to_string().as_str())
    );
    let query: BTreeMap<&str, String> = request
        .query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let value = if name == "blockid" { block_id_form(value) } else { value.to_owned() };
            (name, value)
        })
        .collect();
    let body = match request.step().as_str() {
        "block" => json!("<bytes>"),
        "blocklist" => json!(block_list_form(&request.body)),
        _ => Value::Object(
            request
                .json()
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.clone(), free_value(name, value)))
                .collect(),
        ),
    };
    json!({"method": request.method, "path": request.path, "query": query, "headers": headers, "body": body})
}

fn block_id_form(value: &str) -> String {
    let text = value.replace("%3D", "=").replace("%2B", "+").replace("%2F", "/");
    let id = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
    assert!(id.is_ascii() && id.len() == 48, "{id}");
    format!("<uuid>{}", &id[36..])
}

fn block_list_form(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap();
    let (head, rest) = text.split_once("<Latest>").unwrap();
    let (id, tail) = rest.split_once("</Latest>").unwrap();
    format!("{head}<Latest>{}</Latest>{tail}", block_id_form(id)).replace('\n', "").replace(' ', "")
}

fn free_value(name: &str, value: &Value) -> Value {
    match name {
        "expires_at" => {
            let text = value.as_str().unwrap();
            assert!(text.len() == 24 && text.ends_with('Z'), "{text}");
            json!("<time>")
        }
        "size" => {
            let _number: u64 = value.as_str().unwrap().parse().unwrap();
            json!("<number as text>")
        }
        "hash" => {
            let text = value.as_str().unwrap();
            assert!(text.starts_with("sha256:") && text.len() == 71, "{text}");
            json!("<digest>")
        }
        _ => value.clone(),
    }
}

/// The steps that both clients have, in order.
fn forms(server: &Server) -> Vec<Value> {
    let requests = server.requests();
    requests.iter().filter(|one| one.step() != "ListArtifacts").map(form).collect()
}

#[test]
fn each_request_has_every_field_of_the_official_clients_request_and_no_other() {
    let Some(clients) = clients() else { return };
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 1000);
    let ours = Server::start_plain();
    let mut wanted = request(&zip);
    wanted.retention_days = Some(30);
    run(&ours, &wanted, Timeouts::default()).result.unwrap();
    let arguments = [NAME, zip.to_str().unwrap(), "30"];
    let official = Server::start_plain();
    node(&clients, &official, "upload.mjs", &[&["artifact-v4"], &arguments[..]].concat());
    let mut forms_of_official = forms(&official);
    // Version 5 of the official client wrote a content type that is none; version 6 writes ours.
    let kind = &mut forms_of_official[2]["headers"]["x-ms-blob-content-type"];
    assert_eq!(*kind, json!("zip"));
    *kind = json!("application/zip");
    assert_eq!(forms(&ours), forms_of_official);

    // The newest client asks for other rules; that is the whole difference.
    let newest = Server::start_plain();
    node(&clients, &newest, "upload.mjs", &[&["artifact-v7"], &arguments[..]].concat());
    let mut forms_of_newest = forms(&newest);
    let create = forms_of_newest[0]["body"].as_object_mut().unwrap();
    assert_eq!(create.remove("mime_type"), Some(json!("application/zip")));
    assert_eq!(create.insert("version".to_owned(), json!(4)), Some(json!(7)));
    assert_eq!(forms(&ours), forms_of_newest);
}

#[test]
fn the_official_client_downloads_what_we_uploaded() {
    let Some(clients) = clients() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    std::fs::create_dir_all(pack.join("payload/gates")).unwrap();
    std::fs::write(pack.join("manifest.json"), "{}\n").unwrap();
    std::fs::write(pack.join("payload/gates/gate.log"), "PASS: x\n".repeat(10_000)).unwrap();
    let zip = folder.path().join("pack.zip");
    assay_gates::pack::zip_folder(&pack, &zip).unwrap();
    let server = Server::start_plain();
    let uploaded = run(&server, &request(&zip), Timeouts::default()).result.unwrap();
    for which in ["artifact-v4", "artifact-v7"] {
        let to = folder.path().join(which);
        std::fs::create_dir(&to).unwrap();
        let answer = node(&clients, &server, "download.mjs", &[which, NAME, to.to_str().unwrap()]);
        assert_eq!(answer["digest"], uploaded.digest.to_string(), "{answer}");
        assert_ne!(answer["digestMismatch"], json!(true), "{answer}");
        for file in ["manifest.json", "payload/gates/gate.log"] {
            assert_eq!(
                std::fs::read(to.join(file)).unwrap(),
                std::fs::read(pack.join(file)).unwrap(),
                "{which} {file}"
            );
        }
    }
}
