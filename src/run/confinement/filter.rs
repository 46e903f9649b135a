//! Decides which system calls a confined program may make: a filter program for the kernel (seccomp), which holds for
//! all child processes too.
//!
//! The filter lists the calls that it refuses. It is not fully known which calls PostgreSQL and extensions' modules
//! need, and a drill that fails because of the filter would be a false alarm. So it refuses the calls that they do
//! not need and that a program could use to break out.

use super::Program;

/// How a confined program may use sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// It accepts connections on local sockets, and makes none.
    Answers,
    /// It may connect to a server on this machine, as psql does.
    Calls,
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls are numbered in the order in which the kernel got them. Calls after this one (`removexattrat`) are unknown
/// here, and refused as if they did not exist.
const LAST_KNOWN: u32 = 466;

/// The flags of `clone` that make namespaces.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Calls that no program of PostgreSQL needs: they read other processes, change the kernel, the machine, its mounts,
/// namespaces and keys, or have been used to break out before.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mknodat,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_vmsplice,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_process_mrelease,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_execveat,
    // Changes to a file's owner and attributes, which Landlock cannot refuse.
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    // Signals with data of the sender, and System V message queues. (Of System V IPC, the server needs a small piece
    // of shared memory.)
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_msgget,
    libc::SYS_msgctl,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
];

/// Calls of the same kind that are newer than the C library's names: `fchmodat2`, `setxattrat`, `removexattrat`.
const REFUSED_LATELY: &[libc::c_long] = &[452, 463, 466];

/// The only mode that a server sets: that of its socket.
const ITS_OWN_ALONE: u32 = 0o700;

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Builds the filter. If `only` is given, the process may execute that program, exactly as it is prepared here, and
/// no other. The filter recognises it by the addresses of its path, arguments and environment in our memory: a later
/// program does not know these addresses, and has other data there.
pub(super) fn build(sockets: Sockets, only: Option<&Program>) -> Vec<libc::sock_filter> {
    let mut filter = Filter::default();
    filter.only_our_architecture();
    filter.refuse_newer();
    for call in REFUSED.iter().chain(REFUSED_HERE) {
        filter.call(*call, vec![answer(libc::EPERM)]);
    }
    for call in REFUSED_LATELY {
        filter.call(*call, vec![answer(libc::ENOSYS)]);
    }
    // Its flags are in memory, which a filter cannot read; after this refusal the C library uses `clone`.
    filter.call(libc::SYS_clone3, vec![answer(libc::ENOSYS)]);
    let namespaces = [vec![load_low(0)], unless_any(NEW_NAMESPACES, libc::EPERM)].concat();
    filter.call(libc::SYS_clone, namespaces);
    let local = [vec![load_low(0)], only_value(libc::AF_UNIX as u32, libc::EAFNOSUPPORT)].concat();
    filter.call(libc::SYS_socket, local);
    if sockets == Sockets::Answers {
        filter.call(libc::SYS_connect, vec![answer(libc::EACCES)]);
        // These calls can name a receiver.
        filter.call(libc::SYS_sendmsg, vec![answer(libc::EPERM)]);
        filter.call(libc::SYS_sendmmsg, vec![answer(libc::EPERM)]);
        let addressed = [zero_or(4, libc::EPERM), vec![ALLOW]].concat();
        filter.call(libc::SYS_sendto, addressed);
    }
    // Inserts text into the terminal as if it were typed.
    let typing = [
        vec![load_low(1)],
        refuse_value(libc::TIOCSTI as u32, libc::EPERM),
        refuse_value(libc::TIOCLINUX as u32, libc::EPERM),
        vec![ALLOW],
    ];
    filter.call(libc::SYS_ioctl, typing.concat());
    // The limits of another process.
    let own_limits = [vec![load_low(0)], only_value(0, libc::EPERM)].concat();
    filter.call(libc::SYS_prlimit64, own_limits);
    // A signal to all processes that it may send one to.
    let signals = [vec![load_low(0)], refuse_value(u32::MAX, libc::EPERM), vec![ALLOW]];
    filter.call(libc::SYS_kill, signals.concat());
    if let Some(program) = only {
        let mode = |argument| [vec![load_low(argument)], only_value(ITS_OWN_ALONE, libc::EPERM)].concat();
        #[cfg(target_arch = "x86_64")]
        filter.call(libc::SYS_chmod, mode(1));
        filter.call(libc::SYS_fchmodat, mode(2));
        filter.call(libc::SYS_fchmod, mode(1));
        let (path, arguments, environment) = program.addresses();
        let addresses = [path as u64, arguments as u64, environment as u64];
        let places = (0..)
            .zip(addresses)
            .flat_map(|(place, address)| exactly(place, address, libc::EACCES));
        filter.call(libc::SYS_execve, places.chain([ALLOW]).collect());
    }
    filter.done()
}

/// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

pub(super) const ALLOW: libc::sock_filter = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u32, k: u32, when: u8, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: when,
        jf: otherwise,
        k,
    }
}

const fn answer(error: i32) -> libc::sock_filter {
    statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ERRNO | (error as u32 & 0xffff),
    )
}

const fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;

/// The lower half of an argument: the kernel reads no more of an `int`. (It comes first on both of our
/// architectures.)
const fn load_low(argument: u32) -> libc::sock_filter {
    load(ARGUMENTS + 8 * argument)
}

const fn load_high(argument: u32) -> libc::sock_filter {
    load(ARGUMENTS + 8 * argument + 4)
}

/// Allows this value of the loaded argument, and no other.
fn only_value(value: u32, error: i32) -> Vec<libc::sock_filter> {
    vec![jump(EQUAL, value, 0, 1), ALLOW, answer(error)]
}

/// Refuses this value, and continues with any other.
fn refuse_value(value: u32, error: i32) -> Vec<libc::sock_filter> {
    vec![jump(EQUAL, value, 0, 1), answer(error)]
}

fn unless_any(bits: u32, error: i32) -> Vec<libc::sock_filter> {
    let test = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    vec![jump(test, bits, 0, 1), answer(error), ALLOW]
}

fn zero_or(argument: u32, error: i32) -> Vec<libc::sock_filter> {
    exactly(argument, 0, error)
}

/// Continues only with this value of the whole argument.
fn exactly(argument: u32, value: u64, error: i32) -> Vec<libc::sock_filter> {
    vec![
        load_low(argument),
        jump(EQUAL, value as u32, 1, 0),
        answer(error),
        load_high(argument),
        jump(EQUAL, (value >> 32) as u32, 1, 0),
        answer(error),
    ]
}

#[derive(Default)]
struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// The numbers below are those of one architecture. A program that uses another interface is killed.
    fn only_our_architecture(&mut self) {
        let end = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS);
        self.0
            .extend([load(ARCH), jump(EQUAL, ARCHITECTURE, 1, 0), end, load(NUMBER)]);
    }

    /// This also refuses the second set of numbers of x86 (x32), which are much higher.
    fn refuse_newer(&mut self) {
        let above = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
        self.0.extend([jump(above, LAST_KNOWN, 0, 1), answer(libc::ENOSYS)]);
    }

    /// The decision on one call; `body` must decide every case, since the number is no longer loaded afterwards.
    fn call(&mut self, number: libc::c_long, body: Vec<libc::sock_filter>) {
        // Every body is much shorter than 256.
        let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
        self.0.push(jump(EQUAL, number as u32, 0, length));
        self.0.extend(body);
    }

    fn done(mut self) -> Vec<libc::sock_filter> {
        self.0.push(ALLOW);
        self.0
    }
}
