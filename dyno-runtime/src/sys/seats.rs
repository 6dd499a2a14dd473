//! Low descriptor numbers that are kept for children.
//!
//! A child gets a copy of its parent's table of descriptors and closes what is not its own: half a microsecond for each that the parent
//! holds, and who has a thousand dynos alive holds seven thousand. A table that is shared at first (CLONE_FILES) is copied only below the
//! number from which close_range(2) closes it (CLOSE_RANGE_UNSHARE, Linux 5.9; `sane_fdtable_size` in fs/file.c). So where what a child is
//! to have stands far up, it is first put at numbers that were reserved early and are low for that reason.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{Mutex, MutexGuard},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec},
};

use super::check;

/// For one child: what a sandbox has of files, and some volumes.
const ROW: usize = 32;

/// Children at a time; others get a copy.
const ROWS: usize = 2;

/// As many entries are copied in a few microseconds.
const LOW: RawFd = 256;

/// Reserved numbers. Whoever reserves them early in its life has low ones.
#[derive(Debug)]
pub struct Seats {
    null: OwnedFd,
    rows: Vec<Mutex<Vec<OwnedFd>>>,
}

/// The numbers of one child, until it has exec'd.
pub struct Row<'a> {
    null: &'a OwnedFd,
    /// None: they are low as they are.
    seats: Option<MutexGuard<'a, Vec<OwnedFd>>>,
    /// The caller's descriptors, in the order of the seats.
    guests: Vec<RawFd>,
}

/// Where a child finds what its parent holds. Child-safe.
#[derive(Clone, Copy)]
pub struct Seated<'a> {
    /// Above all of them; None where the child has a copy of the whole table.
    end: Option<RawFd>,
    guests: &'a [RawFd],
    /// Empty: each is at its own number.
    seats: &'a [OwnedFd],
}

impl Seats {
    /// None where the kernel has no such call, the limit of open files is low, or only high numbers are left: then children get copies.
    ///
    /// # Errors
    /// ENFILE, ENOMEM, or of a filter around us.
    pub fn reserve() -> Result<Option<Self>, Errno> {
        // Of the arguments it says no, of the call it would say so otherwise.
        // SAFETY: numbers only, an empty range.
        match check(unsafe { libc::syscall(libc::SYS_close_range, 1, 0, 0) }) {
            Ok(_) | Err(Errno::INVAL) => {}
            Err(Errno::NOSYS) => return Ok(None),
            Err(e) => return Err(e),
        }
        let null = openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let row = || (0..ROW).map(|_| fcntl_dupfd_cloexec(&null, 3)).collect::<Result<Vec<_>, _>>();
        let rows = match (0..ROWS).map(|_| row()).collect::<Result<Vec<_>, _>>() {
            // Whoever may have so few does not have many.
            Err(Errno::MFILE) => return Ok(None),
            other => other?,
        };
        let low = rows.iter().flatten().all(|seat| seat.as_raw_fd() < LOW);
        Ok(low.then(|| Self { null, rows: rows.into_iter().map(Mutex::new).collect() }))
    }

    /// Seats `guests` that are not low already; None if no row is free, or they are too many.
    pub fn seat(&self, guests: &[BorrowedFd<'_>]) -> Option<Row<'_>> {
        if guests.iter().all(|guest| guest.as_raw_fd() < LOW) {
            return Some(Row { null: &self.null, seats: None, guests: guests.iter().map(AsRawFd::as_raw_fd).collect() });
        }
        let seats = self.rows.iter().find_map(|row| row.try_lock().ok())?;
        let mut row = Row { null: &self.null, seats: Some(seats), guests: Vec::with_capacity(ROW) };
        for guest in guests {
            if row.guests.contains(&guest.as_raw_fd()) {
                continue;
            }
            let seat = row.seats.as_mut()?.get_mut(row.guests.len())?;
            // Counted before: whatever is in it by then is taken out again.
            row.guests.push(guest.as_raw_fd());
            dup3(guest, seat, DupFlags::CLOEXEC).ok()?;
        }
        Some(row)
    }
}

impl Row<'_> {
    /// For the child.
    pub fn seated(&self) -> Seated<'_> {
        let seats = self.seats.as_ref().map_or(&[][..], |seats| &seats[..self.guests.len()]);
        let highest = if self.seats.is_some() { seats.iter().map(AsRawFd::as_raw_fd).max() } else { self.guests.iter().copied().max() };
        Seated { end: Some(highest.map_or(0, |fd| fd + 1)), guests: &self.guests, seats }
    }
}

impl Drop for Row<'_> {
    fn drop(&mut self) {
        // What a seat holds would not be closed with the caller's.
        let Some(seats) = &mut self.seats else { return };
        for at in (0..self.guests.len().min(seats.len())).rev() {
            if dup3(self.null, &mut seats[at], DupFlags::CLOEXEC).is_err() {
                drop(seats.remove(at));
            }
        }
    }
}

impl Seated<'_> {
    /// The child has a copy of everything, at the same numbers.
    pub const NONE: Self = Seated { end: None, guests: &[], seats: &[] };

    /// Where the parent's `fd` is.
    pub fn of<'b>(&'b self, fd: &'b impl AsFd) -> BorrowedFd<'b> {
        let fd = fd.as_fd();
        if self.seats.is_empty() {
            return fd;
        }
        self.guests.iter().position(|guest| *guest == fd.as_raw_fd()).and_then(|at| self.seats.get(at)).map_or(fd, AsFd::as_fd)
    }

    /// Whether the table is the parent's too, until [`Self::leave_table`].
    pub fn shares_table(&self) -> bool {
        self.end.is_some()
    }

    /// A table of our own with nothing above what is ours.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn leave_table(&self) -> Result<(), Errno> {
        let Some(end) = self.end else { return Ok(()) };
        // SAFETY: takes no pointers; from here on the table is this process's alone, and nothing above is used in it.
        check(unsafe { libc::syscall(libc::SYS_close_range, end, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Flags, SharedChild, exit_now, reap, vfork};
    use std::{fs::File, io::Read, os::fd::FromRawFd};

    /// Leaves the table, writes to its guest, and looks for another of the parent's.
    struct Guest<'a> {
        seated: Seated<'a>,
        pipe: BorrowedFd<'a>,
        stranger: RawFd,
        left: Result<(), Errno>,
        sees_stranger: bool,
    }

    impl SharedChild for Guest<'_> {
        fn run(&mut self) -> ! {
            self.left = self.seated.leave_table();
            // SAFETY: numbers only.
            self.sees_stranger = unsafe { libc::syscall(libc::SYS_fcntl, self.stranger, libc::F_GETFD) } >= 0;
            let written = rustix::io::write(self.seated.of(&self.pipe), b"here");
            exit_now(i32::from(written != Ok(4)))
        }
    }

    #[test]
    fn a_child_has_its_guests_and_nothing_above() {
        let seats = Seats::reserve().unwrap().expect("Linux 5.9");
        for least in [3, LOW] {
            has_its_guests(&seats, least);
        }
    }

    /// Of descriptors that are at least `least`.
    fn has_its_guests(seats: &Seats, least: RawFd) {
        let file = File::open("/dev/null").unwrap();
        let (mut reader, near) = std::io::pipe().unwrap();
        let writer = fcntl_dupfd_cloexec(&near, least).unwrap();
        drop(near);
        let far = fcntl_dupfd_cloexec(&file, 700).unwrap();
        let guests = [writer.as_fd(), writer.as_fd(), file.as_fd()];
        let row = seats.seat(&guests).unwrap();
        assert_eq!(row.seats.is_some(), least == LOW);
        let mut child = Guest { seated: row.seated(), pipe: writer.as_fd(), stranger: far.as_raw_fd(), left: Err(Errno::IO), sees_stranger: true };
        let (pidfd, _) = vfork(Flags::FILES, None, &mut child).unwrap();
        reap(pidfd.as_fd()).unwrap();
        assert_eq!((child.left, child.sees_stranger), (Ok(()), false));
        // Our own table is as before.
        far.try_clone().unwrap();
        drop((row, writer));
        let mut text = String::new();
        // Only if no seat holds the pipe any more is there an end.
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
    }

    #[test]
    fn too_many_guests_and_too_many_rows() {
        let seats = Seats::reserve().unwrap().expect("Linux 5.9");
        let file = File::open("/dev/null").unwrap();
        let files: Vec<_> = (0..=ROW).map(|_| fcntl_dupfd_cloexec(&file, LOW).unwrap()).collect();
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        assert!(seats.seat(&files).is_none());
        let rows: Vec<_> = (0..ROWS).map(|_| seats.seat(&files[..1]).unwrap()).collect();
        assert!(seats.seat(&files[..1]).is_none());
        drop(rows);
        assert!(seats.seat(&files[1..]).is_some(), "every seat is free again");
    }

    #[test]
    fn nobody_seated_is_at_his_own_number() {
        // SAFETY: standard output is not closed.
        let out = unsafe { OwnedFd::from_raw_fd(1) };
        assert_eq!(Seated::NONE.of(&out).as_raw_fd(), 1);
        assert!(!Seated::NONE.shares_table());
        std::mem::forget(out);
    }
}
