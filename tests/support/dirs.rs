//! Directories of a test's own, and what is in them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory that is gone with it.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static DIRS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dispatch-loop-{}-{}", std::process::id(), DIRS.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // One of an earlier process of this number, which did not come to its end.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A path in it for a socket, also as the address that a program takes.
    pub fn socket(&self, name: &str) -> (PathBuf, String) {
        let path = self.join(name);
        let address = format!("unix:{}", path.display());
        (path, address)
    }

    pub fn dir(&self, name: &str) {
        fs::create_dir_all(self.join(name)).unwrap();
    }

    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Zeros that take no room on the disk.
    pub fn sparse(&self, name: &str, len: u64) -> File {
        let file = File::create(self.join(name)).unwrap();
        file.set_len(len).unwrap();
        file
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
