//! The state on the disk: read at the start, taken over from older versions, and each change durable before anybody goes
//! by it. Beside it lies the public bundle.
//!
//! A folder that holds a state in part, a damaged one, or one of another trust domain stops the start: a new root in its
//! place would cut off every sidecar that trusts the old one. Knows not when the state changes (`plan`).

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest;
use douane_proto::id::TrustDomain;
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use super::{
    armor,
    document::{self, DocumentError},
    jwt,
    seal::{Seal, SealError},
    sign::{SignError, Signer},
    standing::{Keys, Slot, Standing},
    status::AtRest,
};
use crate::{
    config::LEAF_LIFE,
    state::{self, Disk, Item, Moment, Readers, StateError, StateFolder},
};

/// A state of a few roots has some 10 KiB; a larger file is not one of ours.
const MAX_STATE_BYTES: u64 = 256 * 1024;

/// What was signed before, by whatever settings, ends within this: seconds.
const LONGEST_LEAF: i64 = 24 * 3600;

/// Why there is no authority to sign with. It is never mended by making a new one.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A part of a state is there, the roots are not.
    #[error(
        "{found} exists but {authority} does not: the roots are lost. Restore {authority} from a backup, or choose an \
         empty folder (all sidecars must then get the new bundle)",
        found = found.display(), authority = authority.display()
    )]
    Partial {
        /// What was found.
        found: PathBuf,
        /// What is missing.
        authority: PathBuf,
    },
    /// A file is damaged, or not ours.
    #[error("{path}: {reason}; restore it from a backup", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else goes on with the state.
    #[error(
        "{path} is at state {found}, which we have not written: another control plane has taken over, or it was restored \
         while we ran; start again",
        path = path.display()
    )]
    Overtaken {
        /// Its file.
        path: PathBuf,
        /// Which state lies there.
        found: u64,
    },
    /// The state is there, and we cannot sign by it beside whoever leads.
    #[error("sign by {path}, which another replica leads on: {reason}", path = path.display())]
    Follow {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The seal cannot be opened.
    #[error("{path}", path = path.display())]
    Sealed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: SealError,
    },
    /// A root could not be made or restored.
    #[error("the root in {path}", path = path.display())]
    Signer {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: SignError,
    },
}

/// What a first root is made by.
pub(crate) struct Birth<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) root_life: Duration,
    pub(crate) now: i64,
    /// DER: the root, where its key lies elsewhere.
    pub(crate) given: Option<&'a [u8]>,
}

/// The place of the state. Clones share what is known of it.
#[derive(Clone)]
pub(crate) struct Keep {
    folder: StateFolder,
    disk: Disk,
    seal: Arc<Seal>,
    // The state that we have read or written last, and the one that we tried to write: the disk holds one of them.
    known: Arc<[AtomicU64; 2]>,
}

impl Keep {
    pub(crate) fn new(folder: &StateFolder, disk: Disk, seal: Seal) -> Self {
        Self { folder: folder.clone(), disk, seal: Arc::new(seal), known: Arc::default() }
    }

    /// Reads the state of a locked folder, or makes one where there is none at all.
    pub(crate) fn open(&self, birth: &Birth<'_>) -> Result<Standing, OpenError> {
        let path = self.folder.authority();
        let standing = if self.stored()?.is_some() {
            let standing = self.read(birth.trust_domain)?;
            self.drop_old_form(&standing)?;
            standing
        } else if is_there(&self.folder.root())? {
            self.take_over(birth)?
        } else {
            self.refuse_partial()?;
            let slot = new_slot(birth).map_err(|source| OpenError::Signer { path: path.clone(), source })?;
            let epoch = u64::try_from(birth.now).unwrap_or(1);
            let first = Standing::first(birth.trust_domain.clone(), slot, epoch);
            self.store(&first)?;
            // Aloud: where a folder was not mounted, this is not what its operator wanted.
            tracing::warn!(
                file = %path.display(),
                "a new root was made, because the state folder held none; sidecars trust it by the bundle.pem beside it"
            );
            first
        };
        if self.seal.is_closed() && self.holds_plain_keys()? {
            self.store(&standing)?;
            tracing::info!(file = %path.display(), "the private keys of the roots are sealed now");
        }
        let standing = self.follow_bundle(standing, birth.now)?;
        self.publish(&standing)?;
        Ok(standing)
    }

    /// A root that signs from the start: where the last one has ended while nobody looked, or its key lies elsewhere now,
    /// another takes its place at once. Each step is durable, as always.
    pub(crate) fn revive(&self, standing: Standing, birth: &Birth<'_>) -> Result<Standing, OpenError> {
        let Some(active) = standing.active() else { return Ok(standing) };
        let shortest = i64::try_from(LEAF_LIFE.start().as_secs()).unwrap_or(i64::MAX);
        let has_ended = active.not_after.saturating_sub(birth.now) < shortest;
        let can_sign =
            active.keys.x509.is_some() || birth.given.is_some_and(|root| root == active.certificate);
        if can_sign && !has_ended {
            return Ok(standing);
        }
        let failed = |source| OpenError::Signer { path: self.folder.authority(), source };
        let known = birth.given.and_then(|root| standing.slots.iter().find(|slot| slot.certificate == root));
        let (id, next) = match known {
            Some(slot) => (slot.id.clone(), standing.clone()),
            None => {
                let slot = new_slot(birth).map_err(failed)?;
                (slot.id.clone(), standing.with_prepared(slot))
            }
        };
        let reason = if has_ended { "it has ended" } else { "its key is no longer to be had" };
        tracing::error!(
            root = id,
            replaces = active.id,
            reason,
            "another root signs at once; whoever is not connected needs the new bundle.pem"
        );
        let until = active.not_after.min(birth.now.saturating_add(LONGEST_LEAF));
        let next = next.with_published(&id, birth.now).with_active(&id, until, birth.now);
        self.store(&next)?;
        self.publish(&next)?;
        Ok(next)
    }

    /// What the disk says now; for whoever does not run the authority, too.
    pub(crate) fn read(&self, trust_domain: &TrustDomain) -> Result<Standing, OpenError> {
        let path = self.folder.authority();
        let bytes = self.found()?;
        let standing =
            document::decode(&bytes, trust_domain, &self.seal).map_err(|error| refused(&path, error))?;
        self.knows(standing.generation);
        Ok(standing)
    }

    /// Is the state on the disk still the one that we have written? A lock does not hold for ever on every shared disk:
    /// whoever finds that another goes on with the state must not write over it, nor sign.
    pub(crate) fn refuse_overtaken(&self) -> Result<(), OpenError> {
        let path = self.folder.authority();
        let Some(bytes) = self.stored()? else { return Ok(()) };
        let found = document::generation(&bytes).map_err(|error| refused(&path, error))?;
        if self.known.iter().any(|known| known.load(Ordering::SeqCst) == found) {
            return Ok(());
        }
        Err(OpenError::Overtaken { path, found })
    }

    /// The state is not ours any more: such a one was found.
    pub(crate) fn overtaken(&self, found: u64) -> OpenError {
        OpenError::Overtaken { path: self.folder.authority(), found }
    }

    /// Which state the disk holds now.
    pub(crate) fn generation(&self) -> Result<u64, OpenError> {
        let path = self.folder.authority();
        document::generation(&self.found()?).map_err(|error| refused(&path, error))
    }

    /// The state that whoever led here has left, for the one who leads now: as at a start, but a root is never made.
    pub(crate) fn take_up(&self, domain: &TrustDomain, now: i64) -> Result<Standing, OpenError> {
        let standing = self.follow_bundle(self.read(domain)?, now)?;
        self.publish(&standing)?;
        Ok(standing)
    }

    /// Is there a state?
    pub(crate) fn is_made(&self) -> Result<bool, OpenError> {
        Ok(self.stored()?.is_some())
    }

    /// Lets the `bundle.pem` of a folder that is ours alone hold what whoever leads has published.
    pub(crate) fn publish_own(&self, standing: &Standing) -> Result<(), OpenError> {
        if self.folder.shelf().is_some() { self.publish(standing) } else { Ok(()) }
    }

    /// Do other replicas sign by the state?
    pub(crate) fn is_shared(&self) -> bool {
        self.folder.replica().is_some()
    }

    fn knows(&self, generation: u64) {
        self.known.iter().for_each(|known| known.store(generation, Ordering::SeqCst));
    }

    /// Makes `standing` durable. Whoever calls it lets it take effect afterwards.
    pub(crate) fn store(&self, standing: &Standing) -> Result<(), OpenError> {
        let path = self.folder.authority();
        let bytes = document::encode(standing, &self.seal).map_err(|error| refused(&path, error))?;
        self.refuse_overtaken()?;
        let [_, tried] = &*self.known;
        tried.store(standing.generation, Ordering::SeqCst);
        let written = match self.folder.shelf() {
            Some(shelf) => shelf.write(Item::Authority, &bytes),
            None => self.disk.write(&path, &bytes, Readers::Owner),
        };
        written.map_err(state::failed("write", &path))?;
        self.knows(standing.generation);
        Ok(())
    }

    /// Lets `bundle.pem` hold what sidecars trust, where it does not yet.
    pub(crate) fn publish(&self, standing: &Standing) -> Result<(), OpenError> {
        let path = self.folder.bundle();
        let text = bundle_text(standing);
        if is_there(&path)? && fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        let written = self.disk.write(&path, text.as_bytes(), Readers::Everyone);
        Ok(written.map_err(state::failed("write", &path))?)
    }

    /// Tells whoever watches the disk that everybody goes by the state now.
    pub(crate) fn in_effect(&self) {
        // It cannot fail any more.
        let _ = self.disk.at(Moment::InEffect, &self.folder.authority());
    }

    // Of a state that was written before there was a seal.
    fn holds_plain_keys(&self) -> Result<bool, OpenError> {
        Ok(document::is_plain(&self.found()?))
    }

    // What lies there now, if anything does.
    fn stored(&self) -> Result<Option<Zeroizing<Vec<u8>>>, OpenError> {
        let path = self.folder.authority();
        let Some(shelf) = self.folder.shelf() else {
            return if is_there(&path)? { read_private(&path).map(Some) } else { Ok(None) };
        };
        let bytes = shelf.read(Item::Authority).map_err(state::failed("read", &path))?.map(Zeroizing::new);
        if bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 > MAX_STATE_BYTES) {
            let reason = format!("it is larger than {MAX_STATE_BYTES} bytes");
            return Err(OpenError::Corrupt { path, reason });
        }
        Ok(bytes)
    }

    fn found(&self) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let gone = || state::failed("read", &self.folder.authority())(io::ErrorKind::NotFound.into());
        Ok(self.stored()?.ok_or_else(gone)?)
    }

    // The form of older versions: one root in PEM. Its JWT key is new, so that its bundle is.
    fn take_over(&self, birth: &Birth<'_>) -> Result<Standing, OpenError> {
        let path = self.folder.root();
        let failed = |source| OpenError::Signer { path: path.clone(), source };
        let signer = old_root(&path, birth.trust_domain)?;
        // As it was counted.
        let epoch = u64::try_from(signer.not_before).unwrap_or(0);
        let slot = slot_of(&signer, birth.now).map_err(failed)?;
        let standing = Standing { sequence: 2, ..Standing::first(birth.trust_domain.clone(), slot, epoch) };
        self.refuse_foreign_bundle(&standing)?;
        self.store(&standing)?;
        tracing::info!(from = %path.display(), to = %self.folder.authority().display(), "the root was taken over");
        self.drop_old_form(&standing)?;
        Ok(standing)
    }

    // What was taken over must not lie around for ever; what was not is not ours to remove.
    fn drop_old_form(&self, standing: &Standing) -> Result<(), OpenError> {
        let path = self.folder.root();
        if !is_there(&path)? {
            return Ok(());
        }
        let signer = old_root(&path, &standing.trust_domain)?;
        if standing.slots.iter().any(|slot| slot.certificate == signer.certificate) {
            state::remove(&path).map_err(state::failed("remove", &path))?;
            return Ok(());
        }
        Err(OpenError::Corrupt {
            path,
            reason: "it is not one of the roots in `authority` beside it: one of the two is of another authority, move it \
                     away"
                .to_owned(),
        })
    }

    // The bundle is written after the state: where it is ahead, the state is an older one that was restored, and what
    // sidecars heard since then must not be said again with other words.
    fn follow_bundle(&self, standing: Standing, now: i64) -> Result<Standing, OpenError> {
        self.refuse_foreign_bundle(&standing)?;
        let text = fs::read_to_string(self.folder.bundle()).unwrap_or_default();
        let Some(place) = place_in(&text) else { return Ok(standing) };
        if place <= (standing.epoch, standing.sequence) {
            return Ok(standing);
        }
        let epoch = u64::try_from(now).unwrap_or(0).max(place.0.saturating_add(1));
        tracing::error!(
            epoch,
            "the state is older than the bundle beside it: it was restored from a backup; a new history of the bundle begins"
        );
        let next = standing.in_epoch(epoch);
        self.store(&next)?;
        Ok(next)
    }

    // A bundle follows from the state, so that a crash between the two is mended; one that shares no root is not ours.
    fn refuse_foreign_bundle(&self, standing: &Standing) -> Result<(), OpenError> {
        let path = self.folder.bundle();
        if !is_there(&path)? {
            return Ok(());
        }
        let text = fs::read(&path).map_err(state::failed("read", &path))?;
        let is_ours = |der: &[u8]| standing.slots.iter().any(|slot| slot.certificate == der);
        if Pem::iter_from_buffer(&text).any(|pem| pem.is_ok_and(|pem| is_ours(&pem.contents))) {
            return Ok(());
        }
        Err(OpenError::Corrupt {
            path,
            reason: "it does not hold any root of the authority beside it: one of the two is of another authority, or \
                     much older"
                .to_owned(),
        })
    }

    fn refuse_partial(&self) -> Result<(), OpenError> {
        let folder = &self.folder;
        for found in [folder.bundle(), folder.join_tokens(), folder.last_good(), folder.replicas()] {
            if is_there(&found)? {
                return Err(OpenError::Partial { found, authority: folder.authority() });
            }
        }
        Ok(())
    }
}

/// What lies in a folder that nobody runs on; no private key is read.
pub(crate) fn at_rest(folder: &StateFolder) -> Result<AtRest, OpenError> {
    let path = folder.authority();
    document::at_rest(&read_private(&path)?).map_err(|error| refused(&path, error))
}

/// A root with new keys, or one whose key lies elsewhere, which nobody knows.
pub(crate) fn new_slot(birth: &Birth<'_>) -> Result<Slot, SignError> {
    match birth.given {
        None => slot_of(&Signer::root(birth.trust_domain, birth.root_life, birth.now)?, birth.now),
        Some(root) => {
            // Of others' roots the subject says nothing that is unique.
            let hash = digest::digest(&digest::SHA256, root);
            let id = crate::hex::encode(hash.as_ref().get(..8).unwrap_or_default());
            Slot::new(id, root.to_vec(), Keys { x509: None, jwt: jwt::new_key()? }, birth.now)
        }
    }
}

fn slot_of(signer: &Signer, now: i64) -> Result<Slot, SignError> {
    let keys = Keys { x509: Some(signer.key_der()), jwt: jwt::new_key()? };
    Slot::new(signer.id.clone(), signer.certificate.clone(), keys, now)
}

fn refused(path: &Path, error: DocumentError) -> OpenError {
    let path = path.to_owned();
    match error {
        DocumentError::Seal(source) => OpenError::Sealed { path, source },
        DocumentError::Root { source, .. } => OpenError::Signer { path, source },
        other => OpenError::Corrupt { path, reason: other.to_string() },
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let corrupt = |reason: &str| OpenError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    let metadata = fs::symlink_metadata(path).map_err(state::failed("look at", path))?;
    if !metadata.is_file() || metadata.len() > MAX_STATE_BYTES {
        return Err(corrupt("it is not a file of ours"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(corrupt(&format!("its mode is {mode:o}: others can reach the keys; it must be 600")));
    }
    Ok(Zeroizing::new(fs::read(path).map_err(state::failed("read", path))?))
}

fn old_root(path: &Path, trust_domain: &TrustDomain) -> Result<Signer, OpenError> {
    let corrupt = |reason: &str| OpenError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    let text = read_private(path)?;
    let text = std::str::from_utf8(&text).map_err(|_| corrupt("it is not PEM"))?;
    let certificate = block(text, "CERTIFICATE").ok_or_else(|| corrupt("it holds no whole certificate"))?;
    let key = block(text, "PRIVATE KEY").ok_or_else(|| corrupt("it holds no whole private key"))?;
    let key = Zeroizing::new(key);
    Signer::restore(certificate, &key, trust_domain)
        .map_err(|source| OpenError::Signer { path: path.to_owned(), source })
}

fn bundle_text(standing: &Standing) -> String {
    let bundle = standing.bundle();
    let mut text = format!(
        "# Trust bundle of {}, epoch {}, sequence {}\n",
        bundle.trust_domain, bundle.epoch, bundle.sequence
    );
    for root in &bundle.roots {
        text.push_str(&armor::block("CERTIFICATE", root));
    }
    text
}

fn place_in(bundle: &str) -> Option<(u64, u64)> {
    let first = bundle.lines().next()?.strip_prefix("# Trust bundle of ")?;
    let (_, place) = first.split_once(", epoch ")?;
    let (epoch, sequence) = place.split_once(", sequence ")?;
    Some((epoch.parse().ok()?, sequence.parse().ok()?))
}

// The DER of the one block with this label.
fn block(text: &str, label: &str) -> Option<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----\n"));
    let from = text.get(text.find(&begin)?..)?;
    let block = from.get(..from.find(&end)? + end.len())?;
    Some(Pem::iter_from_buffer(block.as_bytes()).next()?.ok()?.contents)
}

fn is_there(path: &Path) -> Result<bool, StateError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(state::failed("look at", path)(source)),
    }
}
