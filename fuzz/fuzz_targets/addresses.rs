#![no_main]

//! Addresses and names as text.

use dispatch_loop::{Address, ToAddress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let port = 80;
    for (address, name) in
        [(text.to_address(), text.to_name()), ((text, port).to_address(), (text, port).to_name())]
    {
        match address {
            Ok(address) => {
                assert_eq!(name, None, "both an address and a name");
                comes_back(&address);
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!error.chars().any(char::is_control), "{error:?}");
            }
        }
        if let Some((host, port)) = name {
            assert!((1..=254).contains(&host.len()));
            assert_eq!((host.as_str(), port).to_name(), Some((host.clone(), port)));
            if host != "unix" {
                assert_eq!(format!("{host}:{port}").to_name(), Some((host.clone(), port)));
            }
        }
    }
});

/// What is printed is read back, as long as it can be printed as it is.
fn comes_back(address: &Address) {
    let printed = address.to_string();
    match address {
        Address::Abstract(name) if name.escape_ascii().to_string().as_bytes() != &name[..] => {}
        // Control characters are shown escaped.
        Address::Unix(path) if path.to_string_lossy().contains(char::is_control) => {}
        _ => assert_eq!(printed.parse::<Address>().unwrap(), *address),
    }
}
