//! `Address` as a value: read from text, made of std's types, put in order.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use dispatch_loop::{Address, ToAddress};

#[test]
fn an_address_parses_as_to_address_reads_it() {
    for text in ["127.0.0.1:80", "[::1]:80", "[fe80::1%3]:80", "unix:/run/server.sock", "unix:relative"] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address, text.to_address().unwrap());
        assert_eq!(address.to_string(), text);
    }
    #[cfg(target_os = "linux")]
    assert_eq!("unix:@name".parse::<Address>().unwrap().to_string(), "unix:@name");
}

#[test]
fn what_is_no_address_is_quoted_in_the_error() {
    for text in ["", "localhost:80", "127.0.0.1", "127.0.0.1:65536", "::1:80", "a \"b\"\n", "unix:@"] {
        let error = text.parse::<Address>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let quoted = format!("\"{}\"", text.escape_debug());
        assert!(error.to_string().contains(&quoted), "{error}");
    }
}

#[test]
fn what_is_an_address_is_no_name() {
    for text in ["127.0.0.1:80", "[::1]:80", "unix:80", "unix:a:80", "unix:@a"] {
        assert!(text.to_address().is_ok(), "{text}");
        assert_eq!(text.to_name(), None, "{text}");
    }
    for host in ["127.0.0.1", "::1"] {
        assert!((host, 80).to_address().is_ok(), "{host}");
        assert_eq!((host, 80).to_name(), None, "{host}");
    }
    for text in ["localhost:80", "1.2.3:80", "units:80"] {
        assert!(text.to_address().is_err() && text.to_name().is_some(), "{text}");
    }
}

#[test]
fn addresses_are_made_of_those_of_std() {
    let v4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
    let v6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 0);
    assert_eq!(Address::from(v4), Address::Ip(v4.into()));
    assert_eq!(Address::from(v6), Address::Ip(v6.into()));
    assert_eq!(Address::from(SocketAddr::from(v6)), Address::from((Ipv6Addr::LOCALHOST, 80)));
    assert_eq!(Address::from(([127, 0, 0, 1], 80)).ip(), Some(v4.into()));

    let (unnamed, _) = UnixStream::pair().unwrap();
    assert_eq!(Address::from(unnamed.local_addr().unwrap()), Address::Unnamed);
    let path = std::env::temp_dir().join(format!("dispatch-loop-{}-address", std::process::id()));
    let bound = UnixDatagram::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(Address::from(bound.local_addr().unwrap()), path.to_address().unwrap());
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        let name = std::os::unix::net::SocketAddr::from_abstract_name(b"a\0b").unwrap();
        assert_eq!(Address::from(name), Address::Abstract(Box::from(&b"a\0b"[..])));
    }
}

#[test]
fn addresses_are_ordered() {
    let mixed = ["unix:b", "[::1]:1", "127.0.0.1:2", "unix:a", "127.0.0.1:1"];
    let ordered: BTreeSet<Address> = mixed.iter().map(|text| text.parse().unwrap()).collect();
    let texts: Vec<String> = ordered.iter().map(Address::to_string).collect();
    assert_eq!(texts, ["127.0.0.1:1", "127.0.0.1:2", "[::1]:1", "unix:a", "unix:b"]);
    assert!(Address::Unix(Path::new("z").into()) < Address::Unnamed);
}
