// ANCHOR: all
// ANCHOR: about
//! Four ways to wait for signals without polling, and without missing one between a look at
//! a flag and going to sleep. Each does the same job: a line for every SIGUSR1, until SIGINT
//! or SIGTERM ends it.
#![cfg_attr(not(unix), allow(unused))]
// ANCHOR_END: about

#[cfg(unix)]
use std::os::fd::{AsFd, IntoRawFd};
use std::{
    io::{self, Read, Write},
    process,
    sync::{
        atomic::{AtomicBool, AtomicI32, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
#[cfg(unix)]
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, Signal::*, sigaction},
};

// ANCHOR: args
/// Wait for signals in one of four ways, none of which polls
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    way: Way,
}

#[derive(Subcommand)]
enum Way {
    /// A handler sets a flag; sigsuspend opens the mask and sleeps in one step
    Flag,
    /// A handler writes to a pipe; poll sleeps until that, or any other descriptor, is ready
    SelfPipe,
    /// The kernel makes the signals readable from a descriptor (Linux)
    Signalfd,
    /// A thread takes the signals with sigwait and sends them on as messages
    Sigwait,
}
// ANCHOR_END: args

// ANCHOR: ways
#[cfg(unix)]
const WATCHED: [Signal; 3] = [SIGUSR1, SIGINT, SIGTERM];

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    match Args::parse().way {
        Way::Flag => flag(),
        Way::SelfPipe => self_pipe(),
        Way::Signalfd => signalfd(),
        Way::Sigwait => sigwait(),
    }
}
// ANCHOR_END: ways

// ANCHOR: job
#[cfg(unix)]
fn announce() {
    let _ = writeln!(
        io::stdout(),
        "Waiting for signals as process {}",
        process::id()
    );
}

/// The job. False when it is done.
#[cfg(unix)]
fn handle(signal: Signal) -> bool {
    let _ = writeln!(io::stdout(), "Received {signal}");
    signal == SIGUSR1
}
// ANCHOR_END: job

// ANCHOR: set-flag
/// One flag for each signal number.
static ARRIVED: [AtomicBool; 65] = [const { AtomicBool::new(false) }; 65];

extern "C" fn set_flag(signal: i32) {
    // An atomic store is one of the few things that are safe in here.
    ARRIVED[signal as usize].store(true, SeqCst);
}
// ANCHOR_END: set-flag

// ANCHOR: flag
#[cfg(unix)]
fn flag() -> anyhow::Result<()> {
    // Blocked outside of sigsuspend: a signal that comes while we look at the flags stays
    // pending. Without that it would set its flag just before we sleep, and we would sleep on.
    SigSet::from_iter(WATCHED).thread_block()?;
    let blocked = SigSet::thread_get_mask()?;
    let while_asleep: SigSet = blocked.iter().filter(|it| !WATCHED.contains(it)).collect();
    install(set_flag)?;
    announce();
    loop {
        // Swaps the mask and sleeps in one step; the handler runs, the mask comes back, and
        // the result is always EINTR. (With sockets ppoll(2) and pselect(2) are no drop-in: on
        // Linux they let no signal in while a descriptor is ready.)
        let _ = while_asleep.suspend();
        for signal in WATCHED {
            if ARRIVED[signal as usize].swap(false, SeqCst) && !handle(signal) {
                return Ok(());
            }
        }
    }
}
// ANCHOR_END: flag

// ANCHOR: write-byte
/// The writing end of the self-pipe, for the handler.
static PIPE: AtomicI32 = AtomicI32::new(-1);

#[cfg(unix)]
extern "C" fn set_flag_and_write(signal: i32) {
    set_flag(signal);
    let errno = Errno::last_raw(); // the interrupted code may be about to look at it
    // SAFETY: write(2) is async-signal-safe, and the byte outlives the call. If the pipe is
    // full it fails (it does not block): then the reader has reason enough to look already.
    unsafe { libc::write(PIPE.load(SeqCst), c"".as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}
// ANCHOR_END: write-byte

// ANCHOR: self-pipe
#[cfg(unix)]
fn self_pipe() -> anyhow::Result<()> {
    // Both ends non-blocking: the handler must not wait for a full pipe, nor the reader for
    // an empty one. Both CLOEXEC, as std makes them: no other program gets them.
    let (mut reader, writer) = io::pipe().context("cannot create a pipe")?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    PIPE.store(writer.into_raw_fd(), SeqCst); // it stays open until the process ends
    install(set_flag_and_write)?;
    SigSet::from_iter(WATCHED).thread_unblock()?; // a mask is inherited
    announce();
    loop {
        // A server has its sockets in this list, too.
        let mut list = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        match poll(&mut list, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll failed"),
        }
        // First the pipe, then the flags: a signal that comes in between writes again. A
        // byte says no more than "look", so nothing is lost when many come at once.
        let _ = reader.read(&mut [0; 64]);
        for signal in WATCHED {
            if ARRIVED[signal as usize].swap(false, SeqCst) && !handle(signal) {
                return Ok(());
            }
        }
    }
}
// ANCHOR_END: self-pipe

// ANCHOR: signalfd
#[cfg(target_os = "linux")]
fn signalfd() -> anyhow::Result<()> {
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    // Blocked, or the default action would come first; it never becomes readable otherwise.
    let watched = SigSet::from_iter(WATCHED);
    watched.thread_block()?;
    let descriptor = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC)?;
    announce();
    loop {
        match descriptor.read_signal() {
            Ok(Some(info)) if !handle(Signal::try_from(info.ssi_signo as i32)?) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot read signals"),
        }
    }
}
// ANCHOR_END: signalfd

// ANCHOR: signalfd-elsewhere
#[cfg(all(unix, not(target_os = "linux")))]
fn signalfd() -> anyhow::Result<()> {
    anyhow::bail!("only Linux has signalfd; kqueue's EVFILT_SIGNAL is its like on macOS and BSD")
}
// ANCHOR_END: signalfd-elsewhere

// ANCHOR: sigwait
#[cfg(unix)]
fn sigwait() -> anyhow::Result<()> {
    // A signal for the process goes to any thread that does not block it. So block it before
    // there are others: they inherit the mask, and only sigwait takes it.
    let watched = SigSet::from_iter(WATCHED);
    watched.thread_block()?;
    let (sender, receiver) = mpsc::sync_channel(1); // a flood coalesces in the kernel
    let waiter = thread::Builder::new().spawn(move || {
        while let Ok(signal) = watched.wait() {
            if sender.send(signal).is_err() {
                break;
            }
        }
    });
    waiter.context("cannot start a thread")?;
    announce();
    // Here is an ordinary thread: it may lock, allocate, print, and wait for other messages.
    while receiver.recv().is_ok_and(handle) {}
    Ok(())
}
// ANCHOR_END: sigwait

// ANCHOR: install
#[cfg(unix)]
fn install(handler: extern "C" fn(i32)) -> anyhow::Result<()> {
    // No SA_RESTART: it would not restart these waits anyway (signal(7)).
    let action = SigAction::new(
        SigHandler::Handler(handler),
        SaFlags::empty(),
        SigSet::empty(),
    );
    for signal in WATCHED {
        // SAFETY: both handlers do only what is async-signal-safe (signal-safety(7)): they
        // store to an atomic, at an index that is in the array, and one writes to a descriptor
        // and keeps errno.
        unsafe { sigaction(signal, &action) }.context("cannot install a handler")?;
    }
    Ok(())
}
// ANCHOR_END: install

// ANCHOR: not-unix
#[cfg(not(unix))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("signals need Unix; on Windows, run this program in WSL")
}
// ANCHOR_END: not-unix
// ANCHOR_END: all
