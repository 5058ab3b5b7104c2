//! The bytes of PROXY headers: written, read again, cut, damaged.

use dispatch_loop::{Address, ProxyHeader, ProxyVersion};
use proptest::prelude::*;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn parsed(bytes: &[u8]) -> ProxyHeader {
    let (header, len) = ProxyHeader::parse(bytes).unwrap().unwrap();
    assert_eq!(len, bytes.len());
    header
}

/// EDGE_CASES 411
#[test]
fn what_is_written_is_read_again() {
    let pairs = [
        (address("192.0.2.1:1"), address("192.0.2.2:65535")),
        (address("[2001:db8::1]:4000"), address("[::1]:0")),
        (address("unix:/run/a.sock"), address("unix:/b")),
        (Address::Abstract(b"abstract"[..].into()), Address::Unnamed),
    ];
    for (from, to) in pairs {
        let header = ProxyHeader::new(from.clone(), to);
        let v2 = header.clone().with_tlv(1, b"h2").with_tlv(0xEF, b"");
        assert_eq!(parsed(&v2.to_bytes(ProxyVersion::V2).unwrap()), v2);
        let v1 = parsed(&header.to_bytes(ProxyVersion::V1).unwrap());
        match from.ip() {
            None => assert_eq!(v1, ProxyHeader::local()),
            Some(_) => assert_eq!(v1, header),
        }
    }
    let header = ProxyHeader::new(Address::Unnamed, address("unix:/b"));
    assert_eq!(parsed(&header.to_bytes(ProxyVersion::V2).unwrap()), header);
    // One of each family, as a balancer that speaks IPv6 to its clients has it.
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mixed = ProxyHeader::new(address("[2001:db8::1]:4000"), address("192.0.2.2:80"));
        let read = parsed(&mixed.to_bytes(version).unwrap());
        assert_eq!(read.source(), mixed.source());
        assert_eq!(read.destination().unwrap(), &address("[::ffff:192.0.2.2]:80"));
    }
}

/// EDGE_CASES 412: the checksum of RFC 3720's polynomial, over the header with zeros in its place; padding.
#[test]
fn a_wrong_checksum_is_refused() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x16\x7f\0\0\x01\x7f\0\0\x01\x30\x39\0\x50\x03\0\x04";
    let told = crc32c(&[&header[..], &[0; 4], &[4, 0, 0]].concat()).to_be_bytes();
    let whole = [&header[..], &told, &[4, 0, 0]].concat();
    assert_eq!(parsed(&whole), ProxyHeader::new(address("127.0.0.1:12345"), address("127.0.0.1:80")));
    // The byte that says that there is a checksum, or padding, would say that there is something else.
    for at in (16..whole.len() - 3).filter(|at| *at != 28) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert!(ProxyHeader::parse(&damaged).is_err(), "byte {at}");
    }
}

/// By the definition: the remainder of a division by 0x11EDC6F41, bits reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc: u32 = 0xffff_ffff;
    for byte in bytes {
        for bit in 0..8 {
            let one = (crc ^ u32::from(byte >> bit)) & 1 == 1;
            crc >>= 1;
            if one {
                crc ^= 0x1edc_6f41_u32.reverse_bits();
            }
        }
    }
    !crc
}

/// EDGE_CASES 413
#[test]
fn what_has_no_room_is_refused() {
    let header = ProxyHeader::new(address("192.0.2.1:1"), address("192.0.2.2:2"));
    let large = header.clone().with_tlv(1, &[0; 65_521]);
    assert!(large.to_bytes(ProxyVersion::V2).is_err());
    assert!(header.with_tlv(1, b"").to_bytes(ProxyVersion::V1).is_err());
    let long = Address::Unix(std::path::Path::new(&"p".repeat(109)).into());
    assert!(ProxyHeader::new(long, Address::Unnamed).to_bytes(ProxyVersion::V2).is_err());
}

proptest! {
    /// EDGE_CASES 411, 412: any bytes; and headers with a byte changed, cut, or with more behind.
    #[test]
    fn any_bytes_are_a_header_or_not_and_a_start_of_one_is_not_refused(
        at in 0usize..200,
        to in any::<u8>(),
        value in proptest::collection::vec(any::<u8>(), 0..64),
        behind in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = ProxyHeader::parse(&behind);
        let told = ProxyHeader::new(address("192.0.2.1:1"), address("192.0.2.2:2"));
        let v1 = told.to_bytes(ProxyVersion::V1).unwrap();
        let v2 = told.with_tlv(5, &value).to_bytes(ProxyVersion::V2).unwrap();
        for bytes in [v1, v2] {
            for cut in 0..bytes.len() {
                prop_assert!(ProxyHeader::parse(&bytes[..cut]).unwrap().is_none());
            }
            let long = [&bytes[..], &behind[..]].concat();
            prop_assert_eq!(ProxyHeader::parse(&long).unwrap().unwrap().1, bytes.len());
            let mut damaged = bytes.clone();
            let len = damaged.len();
            damaged[at % len] = to;
            let _ = ProxyHeader::parse(&damaged);
        }
    }
}
