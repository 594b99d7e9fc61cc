//! i386's two calls that stand for many: socketcall(2) and ipc(2).

/// The number that stands for the call `name` as the first argument, and that of the call that takes it: linux/net.h's
/// SYS_* for socketcall, linux/ipc.h's for ipc.
///
/// A rule for such a name is one for both ways. socketcall's further argument is a pointer: a rule's condition on the
/// first argument is lost there, the others compare what they find, as libseccomp has it.
pub(super) fn i386(name: &str) -> Option<(u32, u32)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    Some(match name {
        "socket" => (1, SOCKETCALL),
        "bind" => (2, SOCKETCALL),
        "connect" => (3, SOCKETCALL),
        "listen" => (4, SOCKETCALL),
        "accept" => (5, SOCKETCALL),
        "getsockname" => (6, SOCKETCALL),
        "getpeername" => (7, SOCKETCALL),
        "socketpair" => (8, SOCKETCALL),
        "send" => (9, SOCKETCALL),
        "recv" => (10, SOCKETCALL),
        "sendto" => (11, SOCKETCALL),
        "recvfrom" => (12, SOCKETCALL),
        "shutdown" => (13, SOCKETCALL),
        "setsockopt" => (14, SOCKETCALL),
        "getsockopt" => (15, SOCKETCALL),
        "sendmsg" => (16, SOCKETCALL),
        "recvmsg" => (17, SOCKETCALL),
        "accept4" => (18, SOCKETCALL),
        "recvmmsg" => (19, SOCKETCALL),
        "sendmmsg" => (20, SOCKETCALL),
        "semop" => (1, IPC),
        "semget" => (2, IPC),
        "semctl" => (3, IPC),
        "semtimedop" => (4, IPC),
        "msgsnd" => (11, IPC),
        "msgrcv" => (12, IPC),
        "msgget" => (13, IPC),
        "msgctl" => (14, IPC),
        "shmat" => (21, IPC),
        "shmdt" => (22, IPC),
        "shmget" => (23, IPC),
        "shmctl" => (24, IPC),
        _ => return None,
    })
}
