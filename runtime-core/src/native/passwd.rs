//! A user's home directory out of the container's own /etc/passwd, read as the untrusted file that it is.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// More of /etc/passwd is not looked at.
const LIMIT: u64 = 1024 * 1024;

/// The home directory of `uid`, `/` where the file has none: what runc sets HOME to.
pub fn home(root: BorrowedFd<'_>, uid: u32) -> String {
    let mut text = String::new();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat2(root, c"etc/passwd", flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .ok()
        .filter(|fd| rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG));
    if let Some(fd) = file {
        let mut bytes = Vec::new();
        // An unreadable file is the same as one without the user.
        let _ = std::fs::File::from(fd).take(LIMIT).read_to_end(&mut bytes);
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    home_in(&text, uid).unwrap_or("/").to_owned()
}

/// passwd(5): name:password:uid:gid:gecos:home:shell.
fn home_in(text: &str, uid: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found: u32 = fields.nth(2)?.parse().ok()?;
        let home = fields.nth(2)?;
        (found == uid && !home.is_empty() && !home.contains('\0')).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::home_in;

    #[test]
    fn a_home_is_found_by_uid_and_nonsense_is_passed_over() {
        let text = "root:x:0:0:root:/root:/bin/sh\n# comment\nbad:x:y:0::/bad:\n+\napp:x:1000:1000::/home/app:/bin/sh\nempty:x:7:7:::";
        assert_eq!(home_in(text, 0), Some("/root"));
        assert_eq!(home_in(text, 1000), Some("/home/app"));
        assert_eq!(home_in(text, 7), None);
        assert_eq!(home_in(text, 99), None);
        assert_eq!(home_in("x:x:4294967296:0::/overflow:", 0), None);
    }
}
