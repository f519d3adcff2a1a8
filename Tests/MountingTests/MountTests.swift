import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsTestSupport
import Glibc
import Synchronization
import Testing

@Suite(.serialized) struct MountTests {
    @Test func showsMetadataAndContent() throws {
        try TestImage.with { test in
            try test.mount(MountOptions(source: MountOptions.source(ofImage: "a name")))
            try check(test)
            try unmount(test.target)
            #expect(try test.open(test.target).entries().isEmpty)
            #expect(failure { try unmount(test.target) } == .notMounted(test.target))
        }

        func check(_ test: TestImage) throws {
            let target = try test.open(test.target)
            let names = try target.entries().map(\.name).sorted()
            #expect(names == ["external", "inline", "link", "sub", "tampered"])
            #expect(try test.mounted("inline") == Array("in the image\n".utf8))
            #expect(try test.mounted("external") == TestImage.external)
            #expect(try test.mounted("sub/large") == TestImage.large)
            #expect(try target.readLink(at: "link") == "sub/large")
            let status = try target.status(at: "inline")
            #expect(status.permissions == 0o640 && status.uid == 1000 && status.gid == 1001)
            #expect(try target.status(at: "external").size == UInt64(TestImage.external.count))
            #expect(try target.fileSystemStatus().type == FileSystemStatus.typeOverlay)
            #expect(try target.fileSystemStatus().isReadOnly)
            // Neither overlayfs's attributes nor objects under their own names are visible.
            #expect(try target.extendedAttributes(at: "external").filter { $0.name.hasPrefix("trusted.overlay") } == [])
            #expect(try target.statusIfPresent(at: "00") == nil)
            let line = try mountLine(test.target)
            #expect(line?.contains(" - overlay composefs:a\\040name ro,") == true)
            #expect(line?.contains("metacopy=on") == true && line?.contains("redirect_dir=on") == true)
        }
    }

    @Test func anImageOnTmpfsIsMountedThroughALoopDevice() throws {
        guard (try? FileDescriptor.open("/dev/shm", .pathOnly)) != nil else { try Test.cancel("no /dev/shm") }
        guard (try? FileDescriptor.open("/dev/loop-control", .readWrite)) != nil else { try Test.cancel("no loop devices") }
        try TestImage.with { test in
            try test.withImage(onTmpfs: true) { image in
                try mountImage(try test.open(image), objects: try test.open(test.objects), verity: .none, at: test.target)
                #expect(try loopDevices(test).count == 1)
                #expect(try test.mounted("inline") == Array("in the image\n".utf8))
                #expect(try test.mounted("external") == TestImage.external)
                try unmount(test.target)
            }
            // Released with the last user, which the kernel may show a moment later.
            for _ in 0..<100 where try loopDevices(test) != [] { Host.sleep(milliseconds: 10) }
            #expect(try loopDevices(test) == [])
        }
    }

    @Test func attributesAreTheMounts() throws {
        try TestImage.with { test in
            var options = MountOptions()
            options.attributes = [.noSetUserID, .noDevices, .noExecute, .noAccessTime]
            try test.mount(options)
            #expect(try mountOptions(test.target) == ["ro", "nosuid", "nodev", "noexec", "noatime"])
            try changeMount(at: test.target, set: .strictAccessTime, clear: [.noDevices, .noExecute])
            #expect(try mountOptions(test.target) == ["ro", "nosuid"])
            try changeMount(at: test.target, set: [], clear: .strictAccessTime)
            #expect(try mountOptions(test.target) == ["ro", "nosuid", "relatime"])
            try unmount(test.target)
            #expect(failure { try changeMount(at: test.target, set: .readOnly, clear: []) } == .notMounted(test.target))
        }
    }

    @Test func copiesOfMountsOutliveTheOriginals() throws {
        try TestImage.with { test in
            let second = try test.makeDirectory("second")
            let below = test.target + "/sub"
            defer {
                for path in [second + "/sub", second, below, test.target] { while umount2(path.description, Int32(MNT_DETACH)) == 0 {} }
            }
            try test.mount()
            // As systemd does for all mounts: the end of one is the end of its copies.
            #expect(Glibc.mount(nil, test.target.description, nil, UInt(MS_SHARED), nil) == 0)
            let memory = try FileSystemContext("tmpfs")
            try memory.create()
            try memory.mount([]).attachMount(at: below)
            try FileDescriptor.open(below + "/file", [.writeOnly, .create]).writeAll(Array("below".utf8))
            let copy = try test.open(test.target).copyMounts()
            for path in [below, test.target] { try FileDescriptor.unmount(path) }
            try copy.attachMount(at: second)
            #expect(try FileDescriptor.open(second + "/inline", .readOnly).readAll(limit: 100) == Array("in the image\n".utf8))
            #expect(try FileDescriptor.open(second + "/sub/file", .readOnly).readAll(limit: 100) == Array("below".utf8))
            // A directory inside of a mount is the root of its copy.
            try test.open(second + "/sub").copyMounts().attachMount(at: test.target)
            #expect(try FileDescriptor.open(test.target + "/file", .readOnly).readAll(limit: 100) == Array("below".utf8))
        }
    }

    @Test func objectsMayBeInSeveralDirectories() throws {
        try TestImage.with { test in
            let more = try test.makeDirectory("more")
            let objects = try test.open(test.objects)
            // One of the objects is moved.
            let name = try #require(try objects.entries().map(\.name).sorted().first)
            try FileDescriptor.makeDirectory(more + "/" + name, mode: 0o755)
            for entry in try test.open(test.objects + "/" + name).entries() {
                try objects.rename(at: name + "/" + entry.name, to: more + "/" + name + "/" + entry.name)
            }
            try test.mount()
            #expect(throws: SystemError.self) { _ = try test.mounted("external") + test.mounted("sub/large") + test.mounted("tampered") }
            try unmount(test.target)
            for refused in [0, 1, 2, 100] {
                var options = MountOptions()
                options.moreObjects = [more]
                Kernel.observe(RefuseParameter("lowerdir+", times: refused))
                defer { Kernel.observe(nil) }
                try test.mount(options)
                Kernel.observe(nil)
                #expect(try test.mounted("external") == TestImage.external)
                #expect(try test.mounted("sub/large") == TestImage.large)
                try unmount(test.target)
            }
            var options = MountOptions()
            options.moreObjects = [more + "/none"]
            #expect(failure { try test.mount(options) } == .system(SystemError("open", more + "/none", .noEntry)))
        }
    }

    /// With every way of specifying layers, the image itself is the layer, not the directory below its mount.
    @Test(arguments: [0, 2, 100])
    func theTargetMayBeTheCurrentDirectory(refused: Int) throws {
        try TestImage.with { test in
            try FileDescriptor.open(test.target + "/below", [.writeOnly, .create]).writeAll([1])
            let before = try FileDescriptor.currentDirectory.readLink(at: "/proc/self/cwd")
            for (directory, name) in [(test.target, "."), (test.base, "target/."), (test.base, "./target/../target")]
                as [(ByteString, ByteString)]
            {
                #expect(chdir(directory.description) == 0)
                Kernel.observe(RefuseParameter("lowerdir+", times: refused))
                defer {
                    Kernel.observe(nil)
                    #expect(chdir(before.description) == 0)
                }
                try mountImage(try test.open(test.image), objects: try test.open(test.objects), verity: .none, at: name)
                Kernel.observe(nil)
                #expect(try test.mounted("inline") == Array("in the image\n".utf8))
                #expect(try test.mounted("external") == TestImage.external)
                #expect(try FileDescriptor.open(test.target, .readOnly).statusIfPresent(at: "below") == nil)
                #expect(chdir("/") == 0)
                try unmount(test.target)
            }
        }
    }

    /// A source that exceeds the kernel's limit must not prevent mounting.
    @Test func longSources() throws {
        try TestImage.with { test in
            try test.mount(MountOptions(source: ByteString([UInt8](repeating: UInt8(ascii: "s"), count: 256))))
            #expect(try mountLine(test.target)?.contains(" overlay composefs ro") == true)
            try unmount(test.target)
        }
    }

    /// Kernels before 6.15 need layers that are attached, in a private namespace; before 6.8 in one string.
    @Test(arguments: [0, 1, 2, 100])
    func olderWaysGiveTheSame(refused: Int) throws {
        try TestImage.with { test in
            let upper = try test.makeDirectory("upper")
            let work = try test.makeDirectory("work")
            let before = try mountCount(test)
            let observer = RefuseParameter("lowerdir+", times: refused)
            Kernel.observe(observer)
            defer { Kernel.observe(nil) }
            try test.mount(MountOptions(upperDirectory: upper, workDirectory: work, readWrite: true))
            Kernel.observe(nil)
            // With an upper directory, the ways with detached layers are tried first without metacopy, then with it.
            #expect(observer.refused == (refused < 3 ? refused : 5))
            #expect(try mountCount(test) == before + 1)
            #expect(try mountLine(test.target)?.contains(refused < 3 ? "datadir+=" : "::") == true)
            #expect(try test.mounted("inline") == Array("in the image\n".utf8))
            #expect(try test.mounted("external") == TestImage.external)
            #expect(try test.mounted("sub/large") == TestImage.large)
            try FileDescriptor.open(test.target + "/new", [.writeOnly, .create]).writeAll([1])
            #expect(try FileDescriptor.open(upper + "/new", .readOnly).readAll(limit: 10) == [1])
            try unmount(test.target)
            #expect(try mountCount(test) == before)
        }
    }

    @Test func whatIsMissingIsSaid() throws {
        try TestImage.with { test in
            func answer(_ errno: Errno, to parameter: ByteString?) -> String {
                Kernel.observe(Answer(errno, to: parameter))
                defer { Kernel.observe(nil) }
                return failure { try test.mount(requireVerity: parameter == "verity") }?.description ?? ""
            }
            #expect(
                answer(.notPermitted, to: nil)
                    == "mounting needs root privileges (CAP_SYS_ADMIN in the first user namespace): fsopen erofs: Operation not permitted")
            #expect(answer(.noDevice, to: nil).hasPrefix("this kernel has no erofs file system: "))
            #expect(answer(.noSystemCall, to: nil).hasPrefix("this kernel has no mount API "))
            #expect(
                answer(.outOfMemory, to: "ro").hasPrefix("the kernel refused the image: set ro of erofs: Cannot allocate memory"))
            #expect(answer(.notPermitted, to: "metacopy").hasPrefix("mounting needs root privileges "))
            #expect(
                answer(.invalidArgument, to: "redirect_dir").contains("Linux 6.5 or newer): set redirect_dir of overlay: Invalid argument"))
            // If fs-verity is supported, a missing option of overlayfs gives a different error.
            let text = answer(.invalidArgument, to: "verity")
            #expect(text.contains("overlayfs cannot check it") || text.contains("has none, so every file would fail to open"))
        }
    }

    @Test func upperDirectoryTakesChanges() throws {
        try TestImage.with { test in
            let upper = try test.makeDirectory("upper")
            let work = try test.makeDirectory("work")
            let options = MountOptions(upperDirectory: upper, workDirectory: work, readWrite: true)
            try test.mount(options)
            let target = try test.open(test.target)
            try target.open(at: "new", [.writeOnly, .create]).writeAll([1])
            try target.unlink(at: "inline")
            do {
                let external = try target.open(at: "external", .readWrite)
                try external.seek(to: 0, from: .end)
                try external.writeAll([2])
            }
            #expect(try test.mounted("external") == TestImage.external + [2])
            #expect(try FileDescriptor.open(upper + "/new", .readOnly).readAll(limit: 10) == [1])
        }
        try TestImage.with { test in
            let upper = try test.makeDirectory("upper")
            let work = try test.makeDirectory("work")
            try FileDescriptor.open(upper + "/shown", [.writeOnly, .create]).writeAll([5])
            try test.mount(MountOptions(upperDirectory: upper, workDirectory: work))
            #expect(try test.mounted("shown") == [5])
            let target = try test.open(test.target)
            #expect(throws: SystemError.self) { _ = try target.open(at: "new", [.writeOnly, .create]) }
        }
    }

    @Test func ownersAreMapped() throws {
        guard (try? FileDescriptor.open("/usr/bin/unshare", .pathOnly)) != nil else { try Test.cancel("needs unshare (util-linux)") }
        try TestImage.with { test in
            let child = try start("/usr/bin/unshare", ["--user", "sleep", "60"])
            defer { stop(child) }
            let process = ByteString("/proc/\(child)")
            let own = try FileDescriptor.currentDirectory.readLink(at: "/proc/self/ns/user")
            for _ in 0..<500 where try FileDescriptor.currentDirectory.readLink(at: process + "/ns/user") == own {
                Host.sleep(milliseconds: 10)
            }
            for map in ["/uid_map", "/gid_map"] as [ByteString] {
                try FileDescriptor.open(process + map, .writeOnly).writeAll(Array("0 100000 65536".utf8))
            }
            try test.mount(MountOptions(idmap: process + "/ns/user"))
            let status = try test.open(test.target).status(at: "inline")
            #expect(status.uid == 101_000 && status.gid == 101_001)
            #expect(try test.mounted("external") == TestImage.external)
            try unmount(test.target)
            // The kernel refuses the initial user namespace, which maps nothing.
            guard case .ownerMap = failure({ try test.mount(MountOptions(idmap: "/proc/self/ns/user")) }) else {
                Issue.record("accepted the own user namespace")
                return
            }
            #expect(try mountLine(test.target) == nil)
        }
    }

    @Test func optionsMustGoTogether() throws {
        try TestImage.with { test in
            for options in [
                MountOptions(upperDirectory: "/"), MountOptions(workDirectory: "/"), MountOptions(readWrite: true),
            ] {
                guard case .options = failure({ try test.mount(options) }) else {
                    Issue.record("accepted")
                    continue
                }
            }
            guard case .system(let error) = failure({ try test.mount(MountOptions(upperDirectory: "/no", workDirectory: "/no")) }) else {
                Issue.record("accepted a missing upper directory")
                return
            }
            #expect(error == SystemError("open", "/no", .noEntry))
        }
    }

    @Test func aMountInUseIsBusy() throws {
        try TestImage.with { test in
            try test.mount()
            do {
                let user = try test.open(test.target + "/sub")
                #expect(failure { try unmount(test.target) } == .busy(test.target))
                try unmount(test.target, lazily: true)
                #expect(try user.open(at: "large", .readOnly).readAll(limit: 1 << 20) == TestImage.large)
            }
            #expect(try mountLine(test.target) == nil)
        }
    }

    /// Without fs-verity, overlayfs would mount, and opening any file would fail with EIO.
    @Test func secureImagesNeedVerity() throws {
        try TestImage.with { test in
            let objects = try test.open(test.objects)
            do {
                _ = try objects.measureVerity()
            } catch let error as SystemError where error.isUnsupported {
                #expect(failure { try test.mount(requireVerity: true) } == .verityUnsupported(objects: test.objects))
                #expect(try mountLine(test.target) == nil)
                return
            }
            try Test.cancel("this file system has fs-verity")
        }
    }

    /// `tryverity`: with checks if fs-verity is supported, without them otherwise.
    @Test func verityIfSupported() throws {
        try TestImage.requireMounting()
        let isSupported = try hasVerity(TestImage.parent)
        try TestImage.with(verity: isSupported) { test in
            func mount() throws -> Bool {
                try mountImage(try test.open(test.image), objects: try test.open(test.objects), verity: .ifSupported, at: test.target)
            }
            #expect(try mount() == isSupported)
            #expect(try mountLine(test.target)?.contains("verity=require") == isSupported)
            #expect(try test.mounted("external") == TestImage.external)
            try unmount(test.target)
            Kernel.observe(Answer(.invalidArgument, to: "verity"))
            defer { Kernel.observe(nil) }
            #expect(try mount() == false)
            Kernel.observe(nil)
            #expect(try test.mounted("external") == TestImage.external)
        }
    }

    @Test func verityIsEnforced() throws {
        try TestImage.requireMounting()
        do {
            _ = try FileDescriptor.open(TestImage.parent, [.readOnly, .directory]).measureVerity()
        } catch {
            try Test.cancel("no fs-verity: \(error)")
        }
        try TestImage.with(verity: true) { test in
            try test.mount(requireVerity: true)
            #expect(try mountLine(test.target)?.contains("verity=require") == true)
            #expect(try test.mounted("inline") == Array("in the image\n".utf8))
            #expect(try test.mounted("external") == TestImage.external)
            #expect(try test.mounted("sub/large") == TestImage.large)
            do {
                _ = try test.mounted("tampered")
                Issue.record("a tampered object was served")
            } catch let error as SystemError {
                #expect(error.errno == .inputOutput)
            }
        }
        // Without verity the same object is served; therefore a secure repository is never mounted in this way.
        try TestImage.with(verity: true) { test in
            try test.mount(requireVerity: false)
            #expect(try test.mounted("tampered") == Array("what was put there..".utf8))
        }
    }
}

/// Makes the first uses of a mount parameter fail, as on a kernel without it.
final class RefuseParameter: SystemCallObserver {
    private let name: ByteString
    private let times: Int
    private let count = Atomic<Int>(0)

    init(_ name: ByteString, times: Int) {
        self.name = name
        self.times = times
    }

    var refused: Int { min(count.load(ordering: .relaxed), times) }

    func before(_ call: SystemCall) -> Errno? {
        guard call.kind == .mount, let path = call.path, ByteString(path) == name else { return nil }
        return count.add(1, ordering: .relaxed).oldValue < times ? .invalidArgument : nil
    }

    func after(_ call: SystemCall, result: Int) {}
}

/// Makes every mount call fail, or those that set one parameter.
private final class Answer: SystemCallObserver {
    private let errno: Errno
    private let parameter: ByteString?

    init(_ errno: Errno, to parameter: ByteString?) {
        self.errno = errno
        self.parameter = parameter
    }

    func before(_ call: SystemCall) -> Errno? {
        guard call.kind == .mount else { return nil }
        guard let parameter else { return errno }
        return call.path.map { ByteString($0) } == parameter ? errno : nil
    }

    func after(_ call: SystemCall, result: Int) {}
}

/// Whether the kernel and a directory's file system have fs-verity.
private func hasVerity(_ path: ByteString) throws -> Bool {
    let directory = try FileDescriptor.open(path, [.readOnly, .directory])
    do {
        _ = try directory.measureVerity()
        return true
    } catch {
        if error.isUnsupported { return false }
        throw error
    }
}

func descriptorCount() throws -> Int {
    try FileDescriptor.open("/proc/self/fd", [.readOnly, .directory]).entries().count
}

/// The line of /proc/self/mountinfo for a mount point.
func mountLine(_ target: ByteString) throws -> String? {
    try mountInfo().last { $0.split(separator: " ").dropFirst(4).first.map { ByteString(String($0)) } == target }
}

/// The options of the mount itself, not of its file system.
private func mountOptions(_ target: ByteString) throws -> [String] {
    try mountLine(target)?.split(separator: " ").dropFirst(5).first?.split(separator: ",").map(String.init) ?? []
}

/// The number of mounts below a test's directory or from it; other tests may mount at the same time.
func mountCount(_ test: TestImage) throws -> Int { try mountInfo().count { $0.contains(test.name.description) } }

private func mountInfo() throws -> [String] {
    let bytes = try FileDescriptor.open("/proc/self/mountinfo", .readOnly).readAll(limit: 1 << 20)
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
}

/// The loop devices that show a file of the test.
func loopDevices(_ test: TestImage) throws -> [ByteString] {
    let block = try FileDescriptor.open("/sys/block", [.readOnly, .directory])
    return try block.entries().map(\.name).filter { name in
        guard name.hasPrefix("loop"), let file = try? block.open(at: name + "/loop/backing_file", .readOnly),
            let path = try? file.readAll(limit: 4096)
        else { return false }
        return ByteString(path).description.contains(test.name.description)
    }.sorted()
}
