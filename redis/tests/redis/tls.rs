//! `rediss`, with certificates made by `openssl`.

use std::path::Path;
use std::process::{Command as Process, Stdio};

use dispatch_loop::tls::TlsClient;
use dispatch_loop_redis::Value;

use super::support::*;

fn openssl(dir: &Path, arguments: &str) {
    let mut process = Process::new("openssl");
    process.args(arguments.split(' ')).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(process.stderr(Stdio::null()).status().unwrap().success(), "openssl {arguments}");
}

#[test]
fn rediss_is_redis_over_a_verified_connection() {
    let dir = std::env::temp_dir().join(format!("dl-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for ca in ["ca", "other"] {
        openssl(&dir, &format!("req -x509 {key} -days 30 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"));
    }
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    openssl(&dir, &format!("req {key} -subj /CN=localhost -addext {names} -keyout key.pem -out csr"));
    openssl(&dir, "x509 -req -in csr -copy_extensions copy -days 30 -CA ca.pem -CAkey ca.key -out cert.pem");
    let port = free_port().to_string();
    let path = |name: &str| dir.join(name).display().to_string();
    let (cert, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let args =
        ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let Some(mut server) = Server::start(&[&args[..], &["--tls-auth-clients", "no"]].concat()) else {
        return;
    };

    let tls = options().with_tls(TlsClient::with_roots_file(&ca).unwrap());
    for host in ["localhost", "127.0.0.1"] {
        let (mut map, redis, told) = client_with(&format!("rediss://{host}:{port}/1"), &tls);
        let large = vec![b'x'; 4 << 20];
        ask(&mut map, &redis, dispatch_loop_redis::Command::new("SET").arg("k").arg(&large)).unwrap();
        assert!(ask(&mut map, &redis, ["GET", "k"]).unwrap().as_bytes() == Some(&large));
        let version = map.channel(redis.token().unwrap()).unwrap().tls().unwrap().version();
        assert!(version.is_some());
        server.kill();
        turn_until(&mut map, "the loss", |_| told.disconnected() > 0);
        server.begin();
        assert_eq!(ask(&mut map, &redis, ["EXISTS", "k"]).unwrap(), Value::Int(0));
    }
    // Another authority, another name, and a server that does not speak TLS.
    let wrong =
        options().with_max_attempts(1).with_tls(TlsClient::with_roots_file(path("other.pem")).unwrap());
    let plain = tls.clone().with_max_attempts(1);
    for (url, options) in [
        (format!("rediss://localhost:{port}"), wrong),
        (server.url().replace("redis://", "rediss://"), plain),
    ] {
        let (mut map, redis, told) = client_with(&url, &options);
        redis.call(&mut map, ["PING"], |_, answer| assert!(answer.is_err())).unwrap();
        dispatch_loop::run(&mut map).unwrap();
        assert!(told.connected() == 0 && told.gone().is_some());
        println!("{url}: {}", told.gone().unwrap());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
