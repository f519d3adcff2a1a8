import ComposefsBootFormats
import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

/// Writes what boots one image. The order is what makes it safe: see `BootPartition`.
struct BootWriter {
    let partition: BootPartition
    let deployments: Deployments
    let chosen: BootResource
    let resources: [BootResource]
    let options: BootPreparation
    let repository: Repository

    init(
        _ partition: BootPartition, _ deployments: Deployments, _ chosen: BootResource, _ resources: [BootResource],
        _ options: BootPreparation, _ repository: Repository
    ) {
        self.partition = partition
        self.deployments = deployments
        self.chosen = chosen
        self.resources = resources
        self.options = options
        self.repository = repository
    }

    private var subdirectory: ByteString { BootPartition.relative(options.subdirectory) }

    /// The addons of the unified kernel image that is booted (systemd-stub(7)).
    private var addons: [BootResource] {
        guard chosen.kind == .unified else { return [] }
        return resources.filter { $0.kind == .addon && $0.path.hasPrefix(chosen.path + ".extra.d/") }
    }

    // MARK: Planning

    /// The files that the partition needs, in the order of the entry's lines. Nothing is written. The files of a unified kernel image get their
    /// place when the entry has its name.
    func plan() throws -> [PartitionFile] {
        if chosen.kind == .unified {
            guard options.arguments.arguments.isEmpty else { throw BootError.unifiedWithArguments(chosen.path) }
            guard addons.isEmpty || options.attempts == nil else { throw BootError.attemptsWithAddons(chosen.path) }
            return try unifiedFiles(temporaryName)
        }
        for argument in options.arguments.arguments where argument.bytes.contains(where: { $0 < 0x20 || $0 == 0x7f }) {
            throw BootError.invalidArgument(argument)
        }
        var files: [PartitionFile] = []
        for file in chosen.files {
            let line = file.key + " " + file.path
            if files.contains(where: { $0.lines.contains(line) }) { continue }
            var shared = try partition.shared(try source(file.content), key: file.key, in: subdirectory)
            shared.lines = [line]
            if let index = files.firstIndex(where: { $0.path == shared.path }) {
                files[index].lines.append(line)
            } else {
                files.append(shared)
            }
        }
        return files
    }

    /// No entry has it, so that all files count as missing.
    private var temporaryName: ByteString { BootPartition.temporaryPrefix }

    private func source(_ content: Content) throws -> StoredFile {
        guard let file = try StoredFile(content, in: repository) else { preconditionFailure("what is booted is a regular file") }
        return file
    }

    private func unifiedFiles(_ name: ByteString) throws -> [PartitionFile] {
        let directory = BootEntry.Kind.unified.directory
        var files: [PartitionFile] = []
        for addon in addons {
            if let fault = addon.fault { throw BootError.resource(addon.path, fault) }
            for file in addon.files {
                files.append(
                    try partition.named(
                        try source(file.content), addon.name + ".addon.efi", in: directory + "/" + name + ".efi.extra.d"))
            }
        }
        for file in chosen.files { files.append(try partition.named(try source(file.content), name + ".efi", in: directory)) }
        return files
    }

    // MARK: Writing

    func write(_ files: [PartitionFile], _ boot: BootImage, _ target: BootTarget, _ images: ImageStore) throws -> PreparedBoot {
        for addon in addons {
            let named = try addon.options?.composefsArguments().map(\.id) ?? []
            guard named.allSatisfy({ $0 == boot.id }) else {
                throw BootError.unifiedNamesOther(addon.path, found: named, expected: [boot.id])
            }
        }
        let before = try partition.entries()
        let system = try deployments.system()
        let number = (before.map(\.number).max() ?? 0) + 1
        let kind: BootEntry.Kind = chosen.kind == .unified ? .unified : .entry
        var name = LoaderEntryName(options.entry ?? BootEntry.name(system, number), attemptsLeft: options.attempts)
        try checkNames(name.name, kind, before)
        let others = before.filter { $0.kind == kind && $0.name.name == name.name }
        let record = DeploymentRecord(
            image: target.name, manifestDigest: target.stored?.manifestDigest, title: chosen.title, kernel: chosen.version,
            prepared: Host.currentTime().seconds)
        let tree = try images.erofsImage(boot.id).tree()
        let state = try deployments.makeState(
            boot.id, tree, record, after: try previous(before, boot.id), mergesEtc: options.mergesEtc, ownVar: options.hasOwnVar, images)

        var written = files
        if kind == .unified {
            // The program is the entry: it is written last.
            written = try unifiedFiles(name.stem)
            try partition.makeDirectories(kind.directory)
            try partition.write(written)
        } else {
            try partition.write(files)
            try partition.makeDirectories(kind.directory)
            let entry = entry(files, boot, system, number)
            try partition.write(name.stem + kind.suffix, in: kind.directory) { try $0.writeAll(entry.bytes) }
        }
        // The same entry with other counters, and older entries for the image: the new one takes their place.
        name.attemptsDone = 0
        let path = kind.directory + "/" + name.stem + kind.suffix
        var replaced: [ByteString] = []
        for old in before where old.path != path && (others.contains(old) || (isOurs(old, system) && old.images.contains(boot.id))) {
            try partition.remove(old)
            replaced.append(old.id)
        }
        let after = try partition.entries()
        guard let entry = after.first(where: { $0.path == path }) else {
            throw BootError.unreadable(partition.path + "/" + path, "it was written, but is not there")
        }
        let isNext = try makeNext(entry, after, deployments.all().map(\.id))
        return PreparedBoot(
            id: boot.id, entry: entry, isNext: isNext, filesWritten: written.count { !$0.isPresent },
            bytesWritten: written.filter { !$0.isPresent }.map(\.size).saturatingSum, filesShared: written.count(where: \.isPresent),
            etc: state.etc, var: state.var,
            replaced: replaced.filter { $0 != entry.id }, globalAddons: resources.count { $0.kind == .globalAddon })
    }

    /// Entries with a given name stay, whichever image they boot.
    private func isOurs(_ entry: BootEntry, _ system: ByteString) -> Bool {
        entry.system == system && entry.name.name.hasPrefix(BootEntry.namePrefix)
    }

    /// A name that is taken may be one of an older entry of ours, which a rename replaces. A unified kernel image with addons cannot be replaced
    /// at once.
    private func checkNames(_ name: ByteString, _ kind: BootEntry.Kind, _ entries: [BootEntry]) throws {
        for other in entries where other.kind == kind && BootPartition.folded(other.name.name) == BootPartition.folded(name) {
            let hasAddons = try kind == .unified && (!addons.isEmpty || !partition.files(in: other.path + ".extra.d").isEmpty)
            // FAT takes names that differ in case for one.
            guard !other.images.isEmpty, !hasAddons, other.name.name == name else {
                throw BootError.entryExists(partition.path + "/" + other.path)
            }
        }
    }

    /// The deployment whose changes count: the one that runs, else the one that would be booted next.
    private func previous(_ entries: [BootEntry], _ id: ObjectID) throws -> Deployment? {
        if let booted = try deployments.booted() { return booted }
        let ordered = try [partition.defaultEntry(of: entries)].compactMap(\.self) + entries
        for entry in ordered {
            for image in entry.images where image != id { if let deployment = try deployments.deployment(image) { return deployment } }
        }
        return nil
    }

    /// The image's entry, or one for a kernel without an entry, with our files, our arguments, and what makes it the newest.
    private func entry(_ files: [PartitionFile], _ boot: BootImage, _ system: ByteString, _ number: Int) -> LoaderEntry {
        var entry = chosen.entry ?? LoaderEntry()
        var arguments = entry.options.arguments.filter { argument in
            let key = Self.key(argument)
            return key != "composefs" && key != "composefs.digest" && !options.arguments.arguments.contains { Self.key($0) == key }
        }
        let image = ComposefsArgument(boot.id, boot.version == .v2 ? .v2 : .v1, allowsInsecure: !repository.isSecure)
        arguments += [image.text] + options.arguments.arguments
        let version = chosen.version.map { "-" + $0 } ?? ""
        for key in ["title", "version", "sort-key", "options"] as [ByteString] { entry.remove(key) }
        let head: [ByteString] = [
            BootEntry.mark(of: system), "title " + (chosen.title ?? boot.name), "version " + ByteString("\(number)") + version,
            "sort-key " + BootEntry.sortKey,
        ]
        let moved = entry.lines.filter { !$0.hasPrefix("#") }.map { line in relocated(line, files) }
        return LoaderEntry(head + moved + ["options " + ByteString(KernelCommandLine(arguments).bytes)])
    }

    private static func key(_ argument: ByteString) -> ByteString { ByteString(argument.bytes.prefix { $0 != UInt8(ascii: "=") }) }

    /// A line of the entry with the place of its file on the partition.
    private func relocated(_ line: ByteString, _ files: [PartitionFile]) -> ByteString {
        guard let (key, path) = LoaderEntry([line]).keyedFiles.first else { return line }
        guard let file = files.first(where: { $0.lines.contains(key + " " + path) }) else {
            preconditionFailure("every file of the entry has been planned")
        }
        return key + " /" + file.path
    }

    // MARK: The default

    /// Makes the new entry the next one to be booted, unless `loader.conf` names an entry of another system.
    ///
    /// Without a line in `loader.conf` the newest entry is booted, and the next one after attempts that failed, which a line would prevent.
    private func makeNext(_ entry: BootEntry, _ entries: [BootEntry], _ deployed: [ObjectID]) throws -> Bool {
        func isNext() throws -> Bool { try partition.defaultEntry(of: entries)?.path == entry.path }
        if let chosen = try partition.configuration()["default"] {
            // A choice of ours, by a rollback: an entry of a deployment, or one that is gone.
            let named = entries.first { $0.id == chosen }
            let isOfOurs = named.map { $0.images.contains { deployed.contains($0) } } ?? chosen.hasPrefix(BootEntry.namePrefix)
            guard isOfOurs else { return try isNext() }
            try partition.setDefault(nil)
        }
        if try !isNext() { try partition.setDefault(entry.id) }
        return try isNext()
    }
}

extension BootImage {
    /// A title for an image without os-release.
    fileprivate var name: ByteString { "composefs image " + ByteString(id.hex.prefix(12).description) }
}

extension BootPartition {
    /// Removes an entry, durably, and then the addons of a unified kernel image.
    func remove(_ entry: BootEntry) throws {
        try remove(entry.path)
        guard entry.kind == .unified else { return }
        let directory = entry.path + ".extra.d"
        let addons = try files(in: directory)
        guard !addons.isEmpty else { return }
        for addon in addons { try remove(directory + "/" + addon) }
        try root.removeDirectory(at: directory)
        try sync(entry.kind.directory)
    }
}
