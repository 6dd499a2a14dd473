# Compiles configurations with libseccomp in runc's way: one JSON list in, one out.
# For each: the program as numbers, and the highest number named of each architecture word; or the error.
import json, struct, sys, tempfile, seccomp
ACT = {"KILL": seccomp.KILL, "KILL_THREAD": seccomp.KILL, "KILL_PROCESS": seccomp.KILL_PROCESS, "TRAP": seccomp.TRAP,
       "ALLOW": seccomp.ALLOW, "LOG": seccomp.LOG, "NOTIFY": seccomp.NOTIFY}
OP = {op: getattr(seccomp, op) for op in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")}
ARCH = {a: getattr(seccomp.Arch, a) for a in ("X86_64", "X86", "X32", "AARCH64", "ARM")}
def action(word, errno):
    word = word.removeprefix("SCMP_ACT_")
    if word in ("ERRNO", "TRACE"):
        return getattr(seccomp, word)(1 if errno is None else errno)
    return ACT[word]
def build(c):
    default = action(c["defaultAction"], c.get("defaultErrnoRet"))
    f = seccomp.SyscallFilter(default)
    arches = [a.removeprefix("SCMP_ARCH_") for a in c.get("architectures", [])]
    native = seccomp.system_arch()
    for a in arches:
        if ARCH[a] != native:
            f.add_arch(seccomp.Arch(ARCH[a]))
    newest = {}
    for s in c.get("syscalls", []):
        act = action(s["action"], s.get("errnoRet"))
        for name in s["names"]:
            try:
                nr = seccomp.resolve_syscall(seccomp.Arch(), name)
            except ValueError:
                continue
            if nr == -1:
                continue
            for a in set(arches + ["NATIVE"]):
                arch = seccomp.Arch(native if a == "NATIVE" else ARCH[a])
                newest[a] = max(newest.get(a, 0), seccomp.resolve_syscall(arch, name))
            if act == default:
                continue
            args = [seccomp.Arg(x["index"], OP[x["op"].removeprefix("SCMP_CMP_")], x["value"], x.get("valueTwo", 0)) for x in s.get("args") or []]
            indices = [x["index"] for x in s.get("args") or []]
            for rule in ([[a] for a in args] if len(set(indices)) < len(indices) else [args]):
                f.add_rule(act, name, *rule)
    with tempfile.TemporaryFile() as out:
        f.export_bpf(out)
        out.seek(0)
        return {"program": [list(i) for i in struct.iter_unpack("<HBBI", out.read())], "newest": newest}
def safely(c):
    try:
        return build(c)
    except Exception as e:
        return {"error": repr(e)}
json.dump([safely(c) for c in json.load(sys.stdin)], sys.stdout)
