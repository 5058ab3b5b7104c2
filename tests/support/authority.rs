//! Certificates for tests, made by the `openssl` command once for all tests of a process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use dispatch_loop::tls::{TlsClient, TlsServer};

use super::dirs::Dir;

/// An authority, and what it has issued.
pub struct Authority {
    dir: Dir,
}

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

/// Everybody trusts this one.
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

/// For `localhost` and the loopback addresses.
pub static LOCALHOST: LazyLock<Pair> =
    LazyLock::new(|| AUTHORITY.issue("localhost", "DNS:localhost,IP:127.0.0.1,IP:::1"));

const KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[track_caller]
fn openssl(arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().expect("the command `openssl` makes the certificates of these tests");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Authority {
    pub fn new() -> Authority {
        let dir = Dir::new();
        let [key, root] = ["root.key", "root.pem"].map(|name| dir.join(name).display().to_string());
        static AUTHORITIES: AtomicUsize = AtomicUsize::new(1);
        let who = format!("/CN=Authority {}", AUTHORITIES.fetch_add(1, Ordering::Relaxed));
        let who = ["-x509", "-nodes", "-days", "30", "-subj", &who];
        openssl(&[&["req"], &KEY[..], &who, &["-keyout", &key, "-out", &root]].concat());
        Authority { dir }
    }

    pub fn root(&self) -> Vec<u8> {
        std::fs::read(self.root_file()).unwrap()
    }

    pub fn root_file(&self) -> PathBuf {
        self.dir.join("root.pem")
    }

    /// A certificate for `names`, such as `DNS:a.test,IP:127.0.0.1`; `name` is that of its files.
    pub fn issue(&self, name: &str, names: &str) -> Pair {
        self.issue_for(name, names, "30")
    }

    /// Its time was over yesterday.
    pub fn issue_expired(&self, name: &str, names: &str) -> Pair {
        self.issue_for(name, names, "-1")
    }

    fn issue_for(&self, name: &str, names: &str, days: &str) -> Pair {
        let file = |end: &str| self.dir.join(&format!("{name}.{end}")).display().to_string();
        let [key, request, certificate] = ["key", "csr", "pem"].map(file);
        let [root, root_key] = ["root.pem", "root.key"].map(|name| self.dir.join(name).display().to_string());
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName={names}"));
        let what = ["-nodes", "-subj", &subject, "-addext", &names, "-keyout", &key, "-out", &request];
        openssl(&[&["req"], &KEY[..], &what].concat());
        let sign = ["x509", "-req", "-in", &request, "-copy_extensions", "copy", "-days", days];
        openssl(&[&sign[..], &["-CA", &root, "-CAkey", &root_key, "-out", &certificate]].concat());
        Pair {
            certificate: std::fs::read(&certificate).unwrap(),
            key: std::fs::read(&key).unwrap(),
            certificate_file: certificate.into(),
            key_file: key.into(),
        }
    }

    /// A list of the certificates that are not good any more, as PEM: this one is.
    pub fn revoke(&self, pair: &Pair) -> Vec<u8> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let [index, number, settings, list] = ["index.txt", "crlnumber", "ca.cnf", "crl.pem"].map(file);
        let [root, root_key] = ["root.pem", "root.key"].map(file);
        let text = format!(
            "[ca]\ndefault_ca = it\n[it]\ndatabase = {index}\ncrlnumber = {number}\ncertificate = {root}\n\
             private_key = {root_key}\ndefault_md = sha256\ndefault_crl_days = 30\n"
        );
        for (file, text) in [(&index, ""), (&number, "01\n"), (&settings, &text)] {
            std::fs::write(file, text).unwrap();
        }
        let ca = ["ca", "-config", &settings];
        openssl(&[&ca[..], &["-revoke", &pair.certificate_file.display().to_string()]].concat());
        openssl(&[&ca[..], &["-gencrl", "-out", &list]].concat());
        std::fs::read(&list).unwrap()
    }

    /// Who trusts this authority, and nobody else.
    pub fn client(&self) -> TlsClient {
        TlsClient::with_roots_pem(&self.root()).unwrap()
    }
}

impl Pair {
    pub fn server(&self) -> TlsServer {
        TlsServer::from_pem(&self.certificate, &self.key).unwrap()
    }
}
