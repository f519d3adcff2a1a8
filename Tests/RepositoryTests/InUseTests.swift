import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import ComposefsTestSupport
import Testing

/// What is a root of a collection without a reference: deployments, boot entries, leases. Mounts are tested with the command.
@Suite struct InUseTests {
    /// A repository with an image that has no name, and with the streams of an OCI image that lead to it.
    private struct Sample {
        let scratch: Scratch
        let repository: Repository
        let image: ObjectID
        let file: ObjectID

        init() throws {
            scratch = try Scratch()
            repository = try scratch.create()
            let file = try repository.store(content(5000))
            var tree = FileTree(root: Metadata(permissions: 0o755))
            try tree.addLeaf("file", in: FileTree.root, Metadata(permissions: 0o644), .external(file.id, size: file.size))
            let image = try repository.storeImage(try writeErofs(tree, version: .v1))
            let layer = try repository.storeStream(inline: [1], objects: [file])
            let config = try repository.storeStream(
                inline: [2], named: [("layer", layer.id), ("composefs.image.v1", image.id)], type: StreamContentType.config)
            let manifest = try repository.storeStream(inline: [3], named: [("config", config.id)], type: StreamContentType.manifest)
            // Of another image, and garbage in any case.
            let other = try repository.storeStream(inline: [4], named: [("layer", layer.id)], type: StreamContentType.config)
            var publication = Repository.Publication()
            publication.image(image.id)
            publication.stream("layer", layer.id)
            publication.stream("config", config.id)
            publication.stream("manifest", manifest.id)
            publication.stream("other", other.id)
            try repository.publish(publication)
            self.image = image.id
            self.file = file.id
        }

        func write(_ path: ByteString, _ bytes: [UInt8]) throws {
            var at = scratch.path
            for part in path.bytes.split(separator: UInt8(ascii: "/")).dropLast() {
                at = at + "/" + ByteString(part)
                try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: at, mode: 0o755)
            }
            try FileDescriptor.open(scratch.path + "/" + path, [.writeOnly, .create, .truncate]).writeAll(bytes)
        }

        /// That everything of the image stays because of these uses, and nothing else does.
        func expectKept(_ uses: [ImageUse], sourceLocation: SourceLocation = #_sourceLocation) throws {
            let plan = try repository.collectGarbage(dryRun: true)
            let report = try repository.collectGarbage()
            #expect(plan == report, sourceLocation: sourceLocation)
            #expect(report.imagesInUse == [ImageInUse(id: image, uses: uses)], sourceLocation: sourceLocation)
            #expect(report.objectsRemoved == 1 && report.streamsRemoved == 1 && report.imagesRemoved == 0, sourceLocation: sourceLocation)
            #expect(try repository.streamNames() == ["config", "layer", "manifest"], sourceLocation: sourceLocation)
            #expect(try repository.objectSize(file) == 5000, sourceLocation: sourceLocation)
            #expect(try repository.check().problems == [], sourceLocation: sourceLocation)
        }

        func expectGone(sourceLocation: SourceLocation = #_sourceLocation) throws {
            #expect(try repository.collectGarbage().imagesInUse == [], sourceLocation: sourceLocation)
            #expect(try scratch.listing().filter { $0.value != "/" }.keys.sorted() == ["meta.json"], sourceLocation: sourceLocation)
        }
    }

    @Test func deployments() throws {
        let sample = try Sample()
        let name = ByteString(sample.image.hex)
        try sample.write("state/deploy/" + name + "/origin", [])
        try sample.expectKept([ImageUse(.deployed, "state/deploy/" + name)])
        try FileDescriptor.currentDirectory.unlink(at: sample.scratch.path + "/state/deploy/" + name + "/origin")
        try FileDescriptor.currentDirectory.removeDirectory(at: sample.scratch.path + "/state/deploy/" + name)
        try sample.expectGone()
    }

    /// An image that lost its link is deployed all the same.
    @Test func deploymentWithoutALink() throws {
        let sample = try Sample()
        try sample.write("state/deploy/" + ByteString(sample.image.hex) + "/origin", [])
        try sample.scratch.directory().unlink(at: "images/" + ByteString(sample.image.hex))
        #expect(try sample.repository.collectGarbage().imagesInUse.map(\.id) == [sample.image])
        #expect(try sample.repository.objectSize(sample.file) == 5000)
        #expect(try sample.repository.objectSize(sample.image) != nil)
    }

    @Test func deploymentsThatCannotBeListed() throws {
        let sample = try Sample()
        try FileDescriptor.currentDirectory.makeDirectory(at: sample.scratch.path + "/state")
        try FileDescriptor.currentDirectory.symlink(target: "deploy", at: sample.scratch.path + "/state/deploy")
        let before = try sample.scratch.listing()
        guard case .system(let error) = failure({ _ = try sample.repository.collectGarbage() }) else {
            Issue.record("collected")
            return
        }
        #expect(error.errno == .tooManySymbolicLinks)
        #expect(try sample.scratch.listing() == before)
    }

    @Test(
        arguments: [
            ("boot/loader/entries/system.conf", "title x\noptions root=UUID=1 composefs=HEX rw\n"),
            ("boot/loader/entries/quiet.conf", "options quiet composefs=?HEX"),
            ("boot/LOADER/ENTRIES/SYSTEM.CONF", "options quiet composefs=?HEX"),
            ("boot/loader/entries.staged/next.conf", "options composefs.digest=v1-sha256:HEX\n"),
            ("boot/grub2/user.cfg", "menuentry \"x\" {\n linux /x/vmlinuz \"composefs=HEX\"\n}\n"),
        ] as [(ByteString, String)])
    func bootEntries(_ path: ByteString, _ text: String) throws {
        let sample = try Sample()
        try sample.write(path, Array(text.replacing("HEX", with: sample.image.hex).utf8))
        try sample.expectKept([ImageUse(.bootEntry, path)])
        // Identifiers in other words are no images.
        try sample.write(path, Array("options composefs=\(String(sample.image.hex.dropLast())) other=\(sample.image.hex)\n".utf8))
        try sample.expectGone()
    }

    /// A PE file whose section `.cmdline` has the text; offsets as the PE format has them.
    private func unified(_ text: String, claiming size: UInt32? = nil) -> [UInt8] {
        func number(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
        var file = Array("MZ".utf8) + [UInt8](repeating: 0, count: 58) + number(UInt32(128))
        file += [UInt8](repeating: 0, count: 64) + Array("PE\0\0".utf8)
        file += number(UInt16(0x8664)) + number(UInt16(2)) + [UInt8](repeating: 0, count: 12) + number(UInt16(240)) + number(UInt16(0))
        file += [UInt8](repeating: 0, count: 240)
        for (name, length, offset) in [
            (".osrel\0\0", UInt32(4), UInt32(1024)), (".cmdline", size ?? UInt32(text.utf8.count), UInt32(2048)),
        ] {
            file +=
                Array(name.utf8) + number(length) + number(UInt32(0)) + number(length) + number(offset) + [UInt8](repeating: 0, count: 16)
        }
        file += [UInt8](repeating: 0, count: 2048 - file.count)
        return file + Array(text.utf8)
    }

    @Test func unifiedKernelImages() throws {
        let sample = try Sample()
        try sample.write("boot/EFI/Linux/bootc/system.efi", unified("root=x composefs=\(sample.image.hex) quiet"))
        try sample.expectKept([ImageUse(.bootEntry, "boot/EFI/Linux/bootc/system.efi")])
        // A section's size is a claim.
        try sample.write("boot/EFI/Linux/bootc/system.efi", unified("composefs=\(sample.image.hex)", claiming: .max))
        #expect(try sample.repository.collectGarbage().imagesInUse.count == 1)
        for wrong in [[], Array("MZ".utf8), unified("composefs=x"), Array(unified("").prefix(150))] {
            try sample.write("boot/EFI/Linux/bootc/system.efi", wrong)
            #expect(try sample.repository.imageUses().images[sample.image] == nil)
        }
        // bootc names the files for the image.
        let path = "boot/EFI/Linux/bootc/bootc_composefs-" + ByteString(sample.image.hex) + ".efi"
        try sample.write(path, [])
        #expect(try sample.repository.collectGarbage().imagesInUse == [ImageInUse(id: sample.image, uses: [ImageUse(.bootEntry, path)])])
        try FileDescriptor.currentDirectory.unlink(at: sample.scratch.path + "/" + path)
        try sample.expectGone()
    }

    // MARK: Leases

    @Test func leases() throws {
        let sample = try Sample()
        // The handle that made it need not stay open.
        let lease = try sample.scratch.open().lease(sample.image, at: "/somewhere")
        let own = try #require(Host.process(Host.processID))
        try sample.expectKept([ImageUse(.mounted, "/somewhere", process: own)])
        #expect(try sample.repository.collectGarbage(wait: .upTo(.zero)).objectsRemoved == 0)
        #expect(try sample.repository.imageReferences() == [])
        lease.end()
        lease.end()
        try sample.expectGone()
    }

    /// The text of a lease, with the parts of a live one unless others are given.
    private func text(_ image: ObjectID, process: Int32 = Host.processID, start: UInt64? = nil, boot: String? = Host.bootID()) throws
        -> [UInt8]
    {
        let start = try start ?? #require(Host.process(process)).start
        return Array(
            #"{"version":1,"image":"\#(image.hex)","process":\#(process),"start":\#(start),"boot":"\#(boot ?? "")","directory":"/x"}"#.utf8)
    }

    private func plant(_ sample: Sample, _ bytes: [UInt8]) throws {
        try sample.scratch.directory().makeDirectoryIfMissing(at: ".leases", mode: 0o755)
        try sample.scratch.write(".leases/planted", bytes)
    }

    /// Without its lock, a lease is as good as the process that it names.
    @Test func leasesOfProcesses() throws {
        let sample = try Sample()
        try plant(sample, try text(sample.image))
        let own = try #require(Host.process(Host.processID))
        try sample.expectKept([ImageUse(.mounted, "/x", process: ProcessIdentity(number: own.number, name: "", start: own.start))])
        for stale in [
            try text(sample.image, start: own.start + 1), try text(sample.image, process: .max, start: 1),
            try text(sample.image, boot: "another"),
        ] {
            try plant(sample, stale)
            let report = try sample.repository.collectGarbage(dryRun: true)
            #expect(report.imagesInUse == [] && report.temporariesRemoved == 1)
        }
        try sample.expectGone()
    }

    /// Damaged and forged leases keep nothing back but what they name, and stop a collection only as long as a process holds them.
    @Test func damagedLeases() throws {
        let sample = try Sample()
        for bytes in [[], Array("{".utf8), Array(#"{"version":2}"#.utf8), Array(#"{"version":1,"image":"x"}"#.utf8), content(1 << 17)] {
            try plant(sample, bytes)
            let holder = try sample.scratch.directory().open(at: ".leases/planted", .readWrite)
            #expect(try holder.lock(.exclusive, wait: false))
            let before = try sample.scratch.listing()
            let error = failure { _ = try sample.repository.collectGarbage() }
            guard case .unknownUse(".leases/planted", .leaseWithoutImage(let process)) = error else {
                Issue.record("collected")
                return
            }
            #expect(process?.number == Host.processID)
            #expect(try sample.scratch.listing() == before)
            try holder.unlock()
            #expect(try sample.repository.collectGarbage(dryRun: true).temporariesRemoved == 1)
        }
        // An object that is no image: it stays, and stops nothing.
        try plant(sample, try text(sample.file))
        _ = try sample.repository.collectGarbage()
        #expect(try sample.repository.objectSize(sample.file) == 5000)
        #expect(try sample.repository.objectSize(sample.image) == nil)
        try plant(sample, [])
        try sample.expectGone()
    }

    @Test func otherThingsAmongLeases() throws {
        let sample = try Sample()
        let root = try sample.scratch.directory()
        for path: ByteString in [".leases", ".leases/folder", "images/refs", "images/refs/.leases"] {
            try root.makeDirectoryIfMissing(at: path, mode: 0o755)
        }
        try root.makeNode(at: ".leases/fifo", mode: 0o010644)
        try root.symlink(target: "fifo", at: ".leases/link")
        try root.symlink(target: "/dev/tty", at: ".leases/outside")
        try root.symlink(target: "../../" + ByteString(sample.image.hex), at: "images/refs/.leases/alone")
        #expect(try sample.repository.collectGarbage().temporariesRemoved == 5)
        try sample.expectGone()
    }

    @Test func leaseDirectoryHoldsNoNames() throws {
        let sample = try Sample()
        for name: ByteString in [".leases", ".leases/x"] {
            var publication = Repository.Publication()
            publication.imageReference(name, sample.image)
            guard case .invalidName(name, _) = failure({ try sample.repository.publish(publication) }) else {
                Issue.record("published \(name)")
                return
            }
        }
    }

    @Test func noLeaseWhereNothingIsWritten() throws {
        let sample = try Sample()
        let before = try sample.scratch.listing()
        let reading = try sample.scratch.open(OpenOptions(readOnly: true))
        guard case .readOnly = failure({ _ = try reading.lease(sample.image, at: "/x") }) else {
            Issue.record("made a lease")
            return
        }
        #expect(try sample.scratch.listing() == before)
    }

    // MARK: Waiting

    @Test func busy() throws {
        let sample = try Sample()
        let other = try sample.scratch.open()
        let begin = Host.monotonicNanoseconds()
        for limit: Duration in [.zero, .milliseconds(200)] {
            guard
                case .busy(sample.scratch.repository, let holders) = failure({
                    _ = try sample.repository.collectGarbage(wait: .upTo(limit))
                })
            else {
                Issue.record("collected")
                return
            }
            #expect(holders.map(\.number) == [Host.processID])
        }
        let elapsed = Host.monotonicNanoseconds() - begin
        #expect(elapsed >= 200_000_000 && elapsed < 5_000_000_000)
        // The shared lock is back: others cannot collect under this handle.
        guard case .busy = failure({ _ = try other.collectGarbage(wait: .upTo(.zero)) }) else {
            Issue.record("collected")
            return
        }
        // Opening waits for a collection as long as the options say.
        let directory = try sample.scratch.directory()
        _ = consume other
        let scratch = sample.scratch
        _ = consume sample
        #expect(try directory.lock(.exclusive, wait: false))
        guard case .busy = failure({ _ = try scratch.open(OpenOptions(wait: .upTo(.milliseconds(50)))) }) else {
            Issue.record("opened")
            return
        }
    }

    @Test func cancelledWhileWaiting() throws {
        let sample = try Sample()
        let other = try sample.scratch.open()
        let before = try sample.scratch.listing()
        let cancellation = Cancellation()
        let refusal = failure {
            _ = try sample.repository.collectGarbage(cancellation: cancellation, willWait: { cancellation.cancel() })
        }
        guard case .cancelled = refusal else {
            Issue.record("\(String(describing: refusal))")
            return
        }
        #expect(try sample.scratch.listing() == before)
        #expect(try other.objectSize(sample.file) == 5000)
    }
}
