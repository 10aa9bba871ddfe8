//! Records what travels between the pods: every frame that leaves the bridge towards one of them.

use std::{
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

/// A recording in progress.
#[derive(Debug)]
pub struct Capture {
    enough: Arc<AtomicBool>,
    recorder: JoinHandle<Recording>,
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// Ethernet frames, in order.
    pub frames: Vec<Vec<u8>>,
    /// Frames that found no room; zero unless megabytes travelled.
    pub missed: u64,
}

impl Capture {
    /// Begins, in the network of the calling thread.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn start() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_PROTOCOLS)))?;
        socket.set_recv_buffer_size(KERNEL_BUFFER)?;
        // So that the recorder notices the end.
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let enough = Arc::new(AtomicBool::new(false));
        let recorder = thread::Builder::new().name("capture".to_owned());
        let recorder = recorder.spawn({
            let enough = Arc::clone(&enough);
            move || record(&socket, &enough)
        })?;
        Ok(Self { enough, recorder })
    }

    /// Ends; returns what was recorded.
    #[must_use]
    pub fn stop(self) -> Recording {
        self.enough.store(true, Ordering::SeqCst);
        self.recorder.join().unwrap_or_default()
    }
}

impl Recording {
    /// Do these bytes stand in any frame?
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.frames.iter().any(|frame| frame.windows(bytes.len()).any(|it| it == bytes))
    }

    /// How many frames begin a TLS 1.2 or 1.3 application data record in their TCP payload.
    #[must_use]
    pub fn tls_records(&self) -> usize {
        self.frames
            .iter()
            .filter(|it| tcp_payload(it).is_some_and(|it| it.starts_with(&[0x17, 3, 3])))
            .count()
    }
}

/// The payload of a frame that carries TCP over IPv4 or IPv6.
#[must_use]
pub fn tcp_payload(frame: &[u8]) -> Option<&[u8]> {
    // Ethernet: 12 bytes of addresses, 2 of type.
    let packet = frame.get(14..)?;
    let segment = match frame.get(12..14)? {
        [0x08, 0x00] if packet.get(9) == Some(&TCP) => {
            packet.get(usize::from(packet.first()? & 0x0f) * 4..)?
        }
        [0x86, 0xdd] if packet.get(6) == Some(&TCP) => packet.get(40..)?,
        _ => return None,
    };
    segment.get(usize::from(segment.get(12)? >> 4) * 4..)
}

fn record(socket: &Socket, enough: &AtomicBool) -> Recording {
    let mut recording = Recording::default();
    let mut bytes = 0;
    let mut frame = vec![0; LONGEST_FRAME];
    // Ends when nothing more is waiting, so that the last frames before `stop` are there.
    loop {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut frame) {
            // A forwarded frame is seen twice, coming from one pod and leaving towards the other: the second counts.
            Ok((length, Some(from))) if from.pkttype() == OUTGOING => {
                let frame = frame.get(..length).unwrap_or_default();
                if bytes + frame.len() > MOST_BYTES {
                    recording.missed += 1;
                } else {
                    bytes += frame.len();
                    recording.frames.push(frame.to_vec());
                }
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) if enough.load(Ordering::SeqCst) => return recording,
            Err(nix::errno::Errno::EAGAIN) => {}
            Err(_) => recording.missed += 1,
        }
    }
}

// ETH_P_ALL in network byte order, as socket(2) takes it.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;
// PACKET_OUTGOING of linux/if_packet.h.
const OUTGOING: u8 = 4;
const TCP: u8 = 6;
// With generic segmentation offload the bridge sees up to 64 KiB at once.
const LONGEST_FRAME: usize = 128 * 1024;
const KERNEL_BUFFER: usize = 8 * 1024 * 1024;
const MOST_BYTES: usize = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_behind_both_families_headers() {
        let mut v4 = vec![0; 14 + 20 + 20];
        v4[12..14].copy_from_slice(&[0x08, 0x00]);
        v4[14] = 0x45;
        v4[14 + 9] = TCP;
        v4[14 + 20 + 12] = 5 << 4;
        v4.extend_from_slice(&[0x17, 3, 3, 0, 1, 9]);
        let mut v6 = vec![0; 14 + 40 + 20];
        v6[12..14].copy_from_slice(&[0x86, 0xdd]);
        v6[14 + 6] = TCP;
        v6[14 + 40 + 12] = 5 << 4;
        v6.extend_from_slice(b"secret");
        let recording = Recording { frames: vec![v4, v6], missed: 0 };

        assert_eq!(recording.tls_records(), 1);
        assert!(recording.contains(b"secret"));
        assert!(!recording.contains(b"another"));
    }
}
