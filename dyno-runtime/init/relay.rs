//! Carries the app's output: to the log FIFO without ever blocking, or, counted, to the caller's pipes as fast as they are read.

use core::ptr::addr_of_mut;

use crate::{
    EAGAIN, EINTR, LOG, poll, sys,
    watch::{OUTPUT, Watch},
};

const PAYLOAD: usize = 4072;
const HEADER: usize = 24;
const IN: i32 = 1;
const OUT: i32 = 4;

/// What was read from each stream and not yet written. Not part of [`Relay`], so that an init that needs none has no pages for it.
static mut BUFFERS: [[u8; PAYLOAD]; 2] = [[0; PAYLOAD]; 2];

pub struct Relay {
    /// Our ends of the app's pipes; -1 once closed.
    pipes: [i32; 2],
    log: bool,
    /// The part of each buffer that is to be written.
    held: [(usize, usize); 2],
    /// Lines lost since the log was told of such.
    pub dropped: u32,
}

impl Relay {
    pub fn new(pipes: [i32; 2], log: bool) -> Self {
        if pipes[0] >= 0 && !log {
            for fd in [1, 2] {
                // SAFETY: F_SETFL (4) takes a number; O_NONBLOCK: the caller must not hold us up when it does not read.
                unsafe { sys::call3(sys::FCNTL, fd, 4, 0o4000) };
            }
        }
        Self { pipes, log, held: [(0, 0); 2], dropped: 0 }
    }

    /// What to wait for, in three places of a poll.
    pub fn wanted(&self, fds: &mut [[i32; 2]]) {
        for i in 0..2 {
            fds[i] = if self.holds(i) { [i as i32 + 1, OUT] } else { [self.pipes[i], IN] };
        }
        // Once lines were lost, room in the log is an event too, so that the loss is told without further output.
        fds[2] = [if self.log && self.dropped > 0 { LOG } else { -1 }, OUT];
    }

    fn holds(&self, i: usize) -> bool {
        self.held[i].0 < self.held[i].1
    }

    /// Does what the poll found possible.
    pub fn ready(&mut self, fds: &[[i32; 2]], watch: &mut Watch) {
        if fds[2][1] >> 16 != 0 {
            self.say_dropped();
        }
        for i in 0..2 {
            if fds[i][1] >> 16 != 0 {
                self.pump(i, watch);
            }
        }
    }

    /// True once, when the output limit was reached: nothing more is taken from the app.
    pub fn is_over(&mut self, watch: &Watch) -> bool {
        let over = watch.breach == OUTPUT && self.pipes != [-1, -1];
        if over {
            // First: a program that writes would be told of a broken pipe, and end in its own way.
            crate::kill_all();
            self.close(0);
            self.close(1);
        }
        over
    }

    /// Moves one chunk of stream `i`; false at its end or when nothing is there.
    fn pump(&mut self, i: usize, watch: &mut Watch) -> bool {
        if self.log { self.to_log(i, watch) } else { self.to_pipe(i, watch) }
    }

    /// In records of at most PIPE_BUF bytes, so that each write is all or nothing.
    fn to_log(&mut self, i: usize, watch: &mut Watch) -> bool {
        let mut buffer = [0u8; HEADER + PAYLOAD];
        match sys::read(self.pipes[i], &mut buffer[HEADER..]) {
            n @ 1.. => {
                let n = watch.spend(n as usize);
                self.say_dropped();
                let lines = buffer[HEADER..HEADER + n].iter().filter(|b| **b == b'\n').count() as u32;
                header(&mut buffer, 1, i as u8 + 1, n as u16, 0);
                if self.dropped > 0 || sys::write(LOG, &buffer[..HEADER + n]) == EAGAIN {
                    self.dropped = self.dropped.saturating_add(lines.max(1));
                }
                true
            }
            EAGAIN | EINTR => false,
            _ => {
                self.close(i);
                false
            }
        }
    }

    fn to_pipe(&mut self, i: usize, watch: &mut Watch) -> bool {
        // SAFETY: this program has one thread, and this is the only reference to that buffer.
        let buffer = unsafe { &mut *addr_of_mut!(BUFFERS[i]) };
        if !self.holds(i) {
            match sys::read(self.pipes[i], buffer) {
                n @ 1.. => self.held[i] = (0, watch.spend(n as usize)),
                EAGAIN | EINTR => return false,
                _ => {
                    self.close(i);
                    return false;
                }
            }
        }
        let (from, to) = self.held[i];
        match sys::write(i as i32 + 1, &buffer[from..to]) {
            n @ 0.. => self.held[i].0 += n as usize,
            EAGAIN | EINTR => {}
            // Nobody reads it any more: the app is to learn of it as it would without us.
            _ => {
                self.held[i] = (0, 0);
                self.close(i);
            }
        }
        self.let_go(i);
        true
    }

    fn close(&mut self, i: usize) {
        sys::close(self.pipes[i]);
        self.pipes[i] = -1;
        self.let_go(i);
    }

    /// The caller sees the end of a stream once all of it is written.
    fn let_go(&self, i: usize) {
        if !self.log && self.pipes[i] < 0 && !self.holds(i) {
            sys::close(i as i32 + 1);
        }
    }

    /// Tells how many lines were lost, as soon as there is room again.
    fn say_dropped(&mut self) {
        if self.dropped > 0 {
            let mut buffer = [0u8; HEADER];
            header(&mut buffer, 2, 1, 0, self.dropped);
            if sys::write(LOG, &buffer) == HEADER as isize {
                self.dropped = 0;
            }
        }
    }

    /// All writers are gone: moves what is left. Into pipes that nobody reads no longer than the wall clock says.
    pub fn drain(&mut self, watch: &mut Watch) {
        if self.log {
            for i in 0..2 {
                while self.pipes[i] >= 0 && self.pump(i, watch) {}
            }
            return self.say_dropped();
        }
        while (0..2).any(|i| self.pipes[i] >= 0 || self.holds(i)) && watch.may_wait() {
            self.is_over(watch);
            let mut fds = [[-1, 0]; 3];
            self.wanted(&mut fds);
            poll(&mut fds, watch.patience());
            self.ready(&fds, watch);
        }
    }
}

fn header(buffer: &mut [u8], kind: u8, stream: u8, length: u16, lines: u32) {
    buffer[0..4].copy_from_slice(b"DLOG");
    buffer[4] = kind;
    buffer[5] = stream;
    buffer[6..8].copy_from_slice(&length.to_le_bytes());
    buffer[8..12].copy_from_slice(&lines.to_le_bytes());
    buffer[12..16].copy_from_slice(&0u32.to_le_bytes());
    buffer[16..24].copy_from_slice(&sys::now_us(0).to_le_bytes());
}
