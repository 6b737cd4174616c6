//! Certificates, proxies and addresses that fit or don't: what can't change is tried once, and its cause is said.

use crate::harness::{NAME, token};
use crate::server::{Kind, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A folder with a pack and, as `ca.pem`, the authority of [`tls`].
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("pack/payload")).unwrap();
        std::fs::write(folder.path().join("pack/manifest.json"), "{}\n").unwrap();
        std::fs::write(folder.path().join("pack/payload/a.log"), "a\n").unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn upload(&self, address: &str, environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay-gates"));
        command.current_dir(self.0.path()).env_clear().env("ACTIONS_RESULTS_URL", address);
        command.env("ACTIONS_RUNTIME_TOKEN", token().reveal()).env("GITHUB_RUN_ID", "42");
        command.envs(environment.iter().copied()).args(["upload", "pack"]).output().unwrap()
    }

    /// Fails at once, with the cause and the advice.
    fn fails_at_once(&self, what: &str, address: &str, environment: &[(&str, &str)], words: &[&str]) {
        let began = Instant::now();
        let output = self.upload(address, environment);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(13), "{what}: {told}");
        assert!(!told.contains("attempt 2") && began.elapsed() < Duration::from_secs(20), "{what}: {told}");
        for word in words {
            assert!(told.contains(word), "{what}: {word}: {told}");
        }
    }
}

/// TLS in front of `server`, with a certificate for localhost; the authority goes to `ca.pem`, a self-signed one too.
fn tls(server: &Server, place: &Place, self_signed: bool) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let (certificate, trusted) = if self_signed {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).unwrap();
        let pem = own.pem();
        (own, pem)
    } else {
        (params.signed_by(&key, &authority).unwrap(), authority.pem())
    };
    std::fs::write(place.at("ca.pem"), trusted).unwrap();
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let behind: SocketAddr = server.address.trim_start_matches("http://").parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut plain = tokio::net::TcpStream::connect(behind).await.unwrap();
                    let _closed = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
    });
    format!("https://localhost:{port}/")
}

/// A proxy that answers every request with 407; gives its address and how often it was asked.
fn refusing_proxy() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let (mut stream, mut head) = (stream, [0; 4096]);
            let _read = stream.read(&mut head);
            let _closed = stream.write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    (address, asked)
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_at_once_and_the_way_to_trust_it_is_said() {
    let (server, place) = (Server::start(Kind::Github), Place::new());
    let address = tls(&server, &place, false);
    place.fails_at_once(
        "unknown authority",
        &address,
        &[],
        &["error[AG801]", "UnknownIssuer", "NODE_EXTRA_CA_CERTS"],
    );
    let address = tls(&server, &place, true);
    let ca = place.at("ca.pem").display().to_string();
    let trusted = [("SSL_CERT_FILE", ca.as_str())];
    place.fails_at_once("an authority as a server", &address, &trusted, &["error[AG801]", "CA:FALSE"]);
    assert!(server.steps().is_empty(), "{:?}", server.steps());
}

#[test]
fn an_authority_is_trusted_through_each_variable_that_names_one() {
    let folder = |place: &Place| {
        // A name as `openssl rehash` gives.
        std::fs::create_dir(place.at("certs")).unwrap();
        std::fs::copy(place.at("ca.pem"), place.at("certs/00000000.0")).unwrap();
        place.at("certs")
    };
    type Named = fn(&Place) -> PathBuf;
    let file: Named = |place| place.at("ca.pem");
    for (variable, path) in
        [("NODE_EXTRA_CA_CERTS", file), ("SSL_CERT_FILE", file), ("SSL_CERT_DIR", folder as Named)]
    {
        let (server, place) = (Server::start(Kind::Github), Place::new());
        let address = tls(&server, &place, false);
        let path = path(&place).display().to_string();
        let output = place.upload(&address, &[(variable, &path)]);
        assert!(output.status.success(), "{variable}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(server.stored(NAME).is_some(), "{variable}");
    }
}

#[test]
fn a_proxy_that_wants_a_password_or_speaks_another_protocol_is_asked_once() {
    let (server, place) = (Server::start(Kind::Github), Place::new());
    let encrypted = tls(&server, &place, false);
    let plain = server.address.clone();
    for (variable, address) in [("HTTPS_PROXY", &encrypted), ("HTTP_PROXY", &plain), ("ALL_PROXY", &plain)] {
        let (proxy, asked) = refusing_proxy();
        place.fails_at_once(variable, address, &[(variable, &proxy)], &["error[AG801]", "NAME:PASSWORD"]);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{variable}");
    }
    let socks = [("ALL_PROXY", "socks5://127.0.0.1:1")];
    place.fails_at_once("socks", &plain, &socks, &["error[AG801]", "only http and https proxies"]);
    place.fails_at_once(
        "no such host",
        "http://no-such-host.invalid/",
        &[],
        &["error[AG801]", "no host of that name"],
    );
    assert!(server.steps().is_empty(), "{:?}", server.steps());
}

#[test]
fn what_no_proxy_names_goes_past_the_proxy() {
    let place = Place::new();
    for form in ["*", "127.0.0.1", "127.0.0.0/8", "127.0.0.1:PORT", "other.test 127.0.0.1:PORT"] {
        let server = Server::start(Kind::Github);
        let port = server.address.rsplit(':').next().unwrap().to_owned();
        let (proxy, asked) = refusing_proxy();
        let past = form.replace("PORT", &port);
        let output = place.upload(&server.address, &[("HTTP_PROXY", &proxy), ("NO_PROXY", &past)]);
        assert!(output.status.success(), "{form}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{form}");
    }
    let server = Server::start(Kind::Github);
    let (proxy, _) = refusing_proxy();
    let elsewhere = [("HTTP_PROXY", proxy.as_str()), ("NO_PROXY", "127.0.0.1:1")];
    place.fails_at_once("another port", &server.address, &elsewhere, &["NAME:PASSWORD"]);
}

#[test]
fn an_empty_pack_is_not_uploaded() {
    let zip = |path: &Path, files: &[&str]| {
        let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
        for name in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(b"{}\n").unwrap();
        }
        zip.finish().unwrap();
    };
    for what in [
        "an empty file",
        "an empty zip",
        "a zip of a manifest alone",
        "a folder with a manifest alone",
        "text",
    ] {
        let (server, place) = (Server::start(Kind::Github), Place::new());
        std::fs::remove_dir_all(place.at("pack")).unwrap();
        match what {
            "an empty file" => std::fs::write(place.at("pack"), "").unwrap(),
            "an empty zip" => zip(&place.at("pack"), &[]),
            "a zip of a manifest alone" => zip(&place.at("pack"), &["manifest.json"]),
            "text" => std::fs::write(place.at("pack"), "no zip").unwrap(),
            _ => {
                std::fs::create_dir_all(place.at("pack/payload")).unwrap();
                std::fs::write(place.at("pack/manifest.json"), "{}\n").unwrap();
            }
        }
        let output = place.upload(&server.address, &[]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(14), "{what}: {told}");
        assert!(told.contains("error[AG710]"), "{what}: {told}");
        assert!(server.steps().is_empty(), "{what}: {:?}", server.steps());
    }
}
