//! What a log is written on: a file; in tests, one whose disk is full or fails.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::Arc,
};

/// Something to write a log on.
pub(super) trait Paper: Send + Sync {
    /// At the end.
    fn write(&self, bytes: &[u8]) -> io::Result<()>;
    /// Until the disk has it.
    fn sync(&self) -> io::Result<()>;
    /// Takes away what follows the first `length` bytes.
    fn cut(&self, length: u64) -> io::Result<()>;
}

/// Makes paper of an open file.
pub(super) type Press = Box<dyn Fn(File) -> Arc<dyn Paper> + Send>;

impl Paper for File {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
