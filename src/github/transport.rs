//! What every connection has in common: the machine's proxies and certificates, and which failures to connect stay.
//!
//! Proxies are those of `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY`; `NO_PROXY` is read as curl and the Actions runner
//! document it, with the matcher of `hyper-util`. Beside the system's certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR`
//! replace them) those of `NODE_EXTRA_CA_CERTS` are trusted, which is how runners are given a company's authority.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Certificate, ClientBuilder, Proxy, Url};
use std::collections::BTreeMap;
use std::error::Error as StdError;

/// A client with proxies and certificates of this machine.
pub fn client() -> ClientBuilder {
    // A second installation is refused, and then the first one is as good.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let proxies = Proxies::new(variable);
    let builder = reqwest::Client::builder().no_proxy().proxy(Proxy::custom(move |url| proxies.of(url)));
    builder.tls_certs_merge(extra_certificates(variable("NODE_EXTRA_CA_CERTS").as_deref()))
}

fn extra_certificates(file: Option<&str>) -> Vec<Certificate> {
    let Some(file) = file else { return Vec::new() };
    let read = std::fs::read(file).map_err(|error| error.to_string());
    let certificates =
        read.and_then(|pem| Certificate::from_pem_bundle(&pem).map_err(|error| error.to_string()));
    certificates.unwrap_or_else(|error| {
        tracing::warn!(file, error, "NODE_EXTRA_CA_CERTS can't be read; going on without");
        Vec::new()
    })
}

/// Which address goes through which proxy.
#[derive(Debug)]
struct Proxies {
    /// As the variables say, by scheme of the address.
    addresses: BTreeMap<&'static str, Url>,
    /// For every port but those of `of_ports`.
    common: Matcher,
    /// Where `NO_PROXY` names ports: everything that goes past the proxy at that port.
    of_ports: BTreeMap<u16, Matcher>,
}

impl Proxies {
    fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |upper: &str, lower: &str| variable(upper).or_else(|| variable(lower));
        let all = either("ALL_PROXY", "all_proxy");
        let parsed = |text: String| Url::parse(&text).or_else(|_| Url::parse(&format!("http://{text}"))).ok();
        let pairs = [
            ("http", either("HTTP_PROXY", "http_proxy").or_else(|| all.clone())),
            ("https", either("HTTPS_PROXY", "https_proxy").or(all)),
        ];
        let pairs =
            pairs.into_iter().filter_map(|(scheme, text)| Some((scheme, with_scheme(parsed, text?)?)));
        let past = either("NO_PROXY", "no_proxy").unwrap_or_default();
        let (mut common, mut of_ports) = (Vec::new(), BTreeMap::<u16, Vec<String>>::new());
        for entry in past.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty()) {
            match split_port(entry) {
                (host, Some(port)) => of_ports.entry(port).or_default().push(plain(host)),
                (host, None) => common.push(plain(host)),
            }
        }
        // The matcher says whether; the address says where.
        let matcher =
            |past: &[String]| Matcher::builder().all("http://proxy.invalid").no(past.join(",")).build();
        let of_ports =
            of_ports.into_iter().map(|(port, more)| (port, matcher(&[more, common.clone()].concat())));
        Self { addresses: pairs.collect(), of_ports: of_ports.collect(), common: matcher(&common) }
    }

    /// The proxy for `url`, if it doesn't go past.
    fn of(&self, url: &Url) -> Option<Url> {
        let proxy = self.addresses.get(url.scheme())?;
        let port = url.port_or_known_default();
        let matcher = port.and_then(|port| self.of_ports.get(&port)).unwrap_or(&self.common);
        matcher.intercept(&url.as_str().parse().ok()?).map(|_| proxy.clone())
    }
}

/// `proxy:3128` parses as an address of the scheme `proxy`: what has no host is taken for host and port.
fn with_scheme(parsed: impl Fn(String) -> Option<Url>, text: String) -> Option<Url> {
    match parsed(text.clone()) {
        Some(url) if url.has_host() => Some(url),
        _ => parsed(format!("http://{text}")),
    }
}

/// `host:port`, `[::1]:port`; a bare IPv6 address has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let at = match entry.rfind(':') {
        Some(at) if entry[..at].ends_with(']') || !entry[..at].contains(':') => at,
        _ => return (entry, None),
    };
    match entry[at + 1..].parse() {
        Ok(port) => (&entry[..at], Some(port)),
        Err(_) => (entry, None),
    }
}

/// As the matcher knows it: no brackets, no dot at the end, `.name` for `*.name`.
fn plain(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.len() > 1 { host.trim_end_matches('.') } else { host };
    // The matcher takes the star for names alone.
    if host == "*" {
        return "*,0.0.0.0/0,::/0".to_owned();
    }
    match host.strip_prefix("*.") {
        Some(domain) => format!(".{domain}"),
        None => host.to_ascii_lowercase(),
    }
}

/// What would keep every other try from connecting, in words and as advice; `None` for what may pass.
#[must_use]
pub fn permanent(error: &(dyn StdError + 'static)) -> Option<(String, &'static str)> {
    let mut chain = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        chain.push(error.to_string());
        next = error.source();
    }
    let whole = chain.join(": ");
    let has = |words: &[&str]| words.iter().any(|word| whole.contains(word));
    let advice = if has(&["UnknownIssuer", "unknown issuer", "UnhandledCriticalExtension"]) {
        "trust its authority: NODE_EXTRA_CA_CERTS or SSL_CERT_FILE names a PEM file with the certificate"
    } else if has(&["CaUsedAsEndEntity"]) {
        "the server shows an authority's own certificate (as `openssl req -x509` makes it): give it one that is signed by the authority, with basicConstraints CA:FALSE"
    } else if has(&["invalid peer certificate", "NotValidForName", "certificate expired"]) {
        "the server's certificate doesn't fit its name or the clock: mend that, or the address"
    } else if has(&["proxy authorization required", "407 Proxy"]) {
        "the proxy wants a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
    } else if has(&["unsupported scheme", "unknown proxy scheme"]) {
        "only http and https proxies are supported: HTTPS_PROXY=http://HOST:PORT, or add the host to NO_PROXY"
    } else if has(&["Name or service not known", "No address associated with hostname", "invalid URL"]) {
        "there is no host of that name: check the address, and HTTPS_PROXY if only the proxy can resolve it"
    } else {
        return None;
    };
    Some((chain.pop().unwrap_or_default(), advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        let pairs: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Proxies::new(move |name| pairs.get(name).cloned())
    }

    #[test]
    fn no_proxy_is_read_in_every_form_that_curl_and_the_runner_know() {
        for (entry, past, through) in [
            ("*", &["http://h.example/", "http://10.1.2.3/", "http://[::1]:8/"][..], &[][..]),
            ("example.com", &["http://example.com/", "http://a.example.com/"], &["http://notexample.com/"]),
            (".example.com", &["http://a.example.com/", "http://example.com/"], &["http://example.org/"]),
            ("*.example.com", &["http://a.example.com/"], &["http://example.org/"]),
            ("EXAMPLE.com.", &["http://example.com/"], &["http://example.org/"]),
            (
                "a.test, b.test c.test",
                &["http://a.test/", "http://b.test/", "http://c.test/"],
                &["http://d.test/"],
            ),
            ("127.0.0.1", &["http://127.0.0.1:81/"], &["http://127.0.0.2/"]),
            ("10.0.0.0/8", &["http://10.9.8.7/"], &["http://11.0.0.1/"]),
            ("::1", &["http://[::1]/"], &["http://[::2]/"]),
            ("[::1]", &["http://[::1]/"], &["http://[::2]/"]),
            ("fd00::/8", &["http://[fd00::1]/"], &["http://[fe00::1]/"]),
            (
                "h.test:8080",
                &["http://h.test:8080/", "http://a.h.test:8080/"],
                &["http://h.test/", "http://h.test:81/"],
            ),
            ("h.test:443", &["https://h.test/"], &["http://h.test/"]),
            (
                "127.0.0.1:81,b.test",
                &["http://127.0.0.1:81/", "http://b.test:81/", "http://b.test/"],
                &["http://127.0.0.1/"],
            ),
            ("[::1]:81", &["http://[::1]:81/"], &["http://[::1]/"]),
            ("", &[], &["http://h.test/"]),
        ] {
            let proxies = proxies(&[("ALL_PROXY", "http://p.test:3128"), ("NO_PROXY", entry)]);
            let of = |url: &str| proxies.of(&Url::parse(url).unwrap());
            for url in past {
                assert_eq!(of(url), None, "{entry}: {url}");
            }
            for url in through {
                assert_eq!(
                    of(url).map(|url| url.to_string()).as_deref(),
                    Some("http://p.test:3128/"),
                    "{entry}: {url}"
                );
            }
        }
    }

    #[test]
    fn each_scheme_has_its_own_proxy_and_a_name_and_password_stay() {
        let all = proxies(&[("https_proxy", "me:secret@p.test:3128"), ("HTTP_PROXY", "p.test:80")]);
        let of = |url: &str| all.of(&Url::parse(url).unwrap()).map(|url| url.to_string());
        assert_eq!(of("https://h.test/").as_deref(), Some("http://me:secret@p.test:3128/"));
        assert_eq!(of("http://h.test/").as_deref(), Some("http://p.test/"));
        assert_eq!(proxies(&[]).of(&Url::parse("http://h.test/").unwrap()), None);
    }
}
