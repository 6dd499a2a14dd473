# Compiles configurations with libseccomp in runc's way: a JSON list in, one out. For each: the program as numbers, and the highest number
# named of each architecture; or the error.
import ctypes, json, struct, sys, tempfile
lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p
class Cmp(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
ACT = {"KILL": 0, "KILL_THREAD": 0, "KILL_PROCESS": 0x80000000, "TRAP": 0x30000, "ALLOW": 0x7fff0000, "LOG": 0x7ffc0000,
       "NOTIFY": 0x7fc00000, "ERRNO": 0x50000, "TRACE": 0x7ff00000}
OP = ["", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
ERROR = -1
def must(answer):
    if answer < 0:
        raise OSError(-answer, "libseccomp")
def action(word, errno):
    word = word.removeprefix("SCMP_ACT_")
    return ACT[word] | ((1 if errno is None else errno) if word in ("ERRNO", "TRACE") else 0)
def add(ctx, act, nr, args):
    array = (Cmp * max(len(args), 1))(*[Cmp(x["index"], OP.index(x["op"].removeprefix("SCMP_CMP_")), x["value"], x.get("valueTwo", 0)) for x in args])
    must(lib.seccomp_rule_add_array(ctx, ctypes.c_uint32(act), ctypes.c_int(nr), ctypes.c_uint(len(args)), array))
def build(c):
    default = action(c["defaultAction"], c.get("defaultErrnoRet"))
    ctx = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
    # SCMP_FLTATR_CTL_OPTIMIZE: a tree, as runc has it for more than 32 calls.
    if c.get("tree"):
        must(lib.seccomp_attr_set(ctx, 8, ctypes.c_uint32(2)))
    arches = {"NATIVE": lib.seccomp_arch_native() & 0xffffffff}
    for a in c.get("architectures") or []:
        a = a.removeprefix("SCMP_ARCH_")
        arches[a] = lib.seccomp_arch_resolve_name(a.lower().encode()) & 0xffffffff
        if arches[a] != arches["NATIVE"]:
            must(lib.seccomp_arch_add(ctx, ctypes.c_uint32(arches[a])))
    newest = dict.fromkeys(arches, 0)
    # By its own number: libseccomp knows calls that 32-bit PCs multiplex by negative ones.
    lib.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    direct = {lib.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(0x40000003), n): n for n in range(500)}
    for s in c.get("syscalls") or []:
        act, args = action(s["action"], s.get("errnoRet")), s.get("args") or []
        for name in s["names"]:
            nr = lib.seccomp_syscall_resolve_name(name.encode())
            if nr == ERROR:
                continue
            for a, token in arches.items():
                known = lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode())
                newest[a] = max(newest[a], direct.get(name.encode(), 0) if a == "X86" else known)
            if act == default:
                continue
            indices = [x["index"] for x in args]
            for rule in ([[a] for a in args] if len(set(indices)) < len(indices) else [args]):
                add(ctx, act, nr, rule)
    with tempfile.TemporaryFile() as out:
        must(lib.seccomp_export_bpf(ctx, out.fileno()))
        out.seek(0)
        lib.seccomp_release(ctx)
        return {"program": [list(i) for i in struct.iter_unpack("<HBBI", out.read())], "newest": newest}
def safely(c):
    try:
        return build(c)
    except OSError as e:
        return {"error": str(e)}
json.dump([safely(c) for c in json.load(sys.stdin)], sys.stdout)
