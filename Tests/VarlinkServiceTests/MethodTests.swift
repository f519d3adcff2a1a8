import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsRepository
import ComposefsTestSupport
import ComposefsVarlink
import Testing

@testable import ComposefsVarlinkService

/// Every method, over the raw protocol, against a repository with an image of the corpus.
@Suite struct MethodTests {
    private static let (repository, oci) = ("org.composefs.Repository.", "org.composefs.Oci.")

    // MARK: org.varlink.service

    @Test func service() throws {
        let service = try TestService()
        let client = try service.connect()
        let info = try client.must("org.varlink.service.GetInfo")
        #expect(info["product"] == "cfsoci" && info["version"] == "1.2.3")
        #expect(info["interfaces"] == ["org.varlink.service", "org.composefs.Repository", "org.composefs.Oci"])
        for interface in [VarlinkInterface.service, .repository, .oci] {
            let description = try client.must("org.varlink.service.GetInterfaceDescription", ["interface": .string(interface.name)])
            #expect(description["description"]?.string?.contains("\ninterface \(interface.name)\n") == true)
        }
        #expect(
            try client.fails("org.varlink.service.GetInterfaceDescription", ["interface": "org.x"])
                == ("org.varlink.service.InterfaceNotFound", ["interface": "org.x"]))
        service.stop()
    }

    /// The names of cli.md, section 7.
    @Test func names() {
        #expect(
            VarlinkInterface.repository.methods == [
                "InitRepository", "EnsureRepository", "OpenRepository", "CloseRepository", "Fsck", "Gc", "ImageObjects", "ListImageRefs",
                "Mount",
            ])
        #expect(
            VarlinkInterface.oci.methods == [
                "ListImages", "Check", "Inspect", "Tag", "Untag", "ComputeId", "Pull", "OciMount", "GetInfo", "HasLayer", "GetLayer",
                "PutLayer", "FinalizeImage",
            ])
        #expect(VarlinkInterface.repository.errors == ["RepoNotFound", "InvalidHandle", "InvalidSpec", "NoSuchRef", "InternalError"])
        #expect(
            VarlinkInterface.oci.errors == [
                "RepoNotFound", "InvalidHandle", "NoSuchImage", "InternalError", "NoSuchLayer", "InvalidDigest", "DiffIdMismatch",
                "InvalidRequest", "FdLimitExceeded", "BootImageMismatch",
            ])
    }

    @Test func protocolErrors() throws {
        let service = try TestService()
        let client = try service.connect()
        #expect(try client.fails("org.x.Y") == ("org.varlink.service.InterfaceNotFound", ["interface": "org.x"]))
        #expect(
            try client.fails(Self.oci + "Nothing") == ("org.varlink.service.MethodNotFound", ["method": "org.composefs.Oci.Nothing"]))
        let invalid = "org.varlink.service.InvalidParameter"
        #expect(try client.fails(Self.repository + "CloseRepository") == (invalid, ["parameter": "handle"]))
        #expect(try client.fails(Self.repository + "CloseRepository", ["handle": "1"]) == (invalid, ["parameter": "handle"]))
        #expect(try client.fails(Self.repository + "CloseRepository", ["handle": -1]) == (invalid, ["parameter": "handle"]))
        #expect(try client.fails(Self.oci + "GetInfo", ["handle": 1]) == (invalid, ["parameter": "handle"]))
        #expect(try client.fails(Self.repository + "OpenRepository", ["path": 1]) == (invalid, ["parameter": "path"]))
        #expect(try client.must(Self.oci + "GetInfo") == ["features": ["splitdirfdstream-v0"]])
        // The connection goes on after errors, and a call without a reply gets none.
        try client.send(Client.message(Self.oci + "Nothing", oneway: true) + Client.message(Self.oci + "GetInfo"))
        #expect(try client.receive()?.reply.error == nil)
        service.stop()
    }

    // MARK: org.composefs.Repository

    @Test func repositories() throws {
        let service = try TestService()
        let client = try service.connect()
        let path = service.folder.path.description + "/a/b/repo"
        #expect(
            try client.must(
                Self.repository + "InitRepository", ["path": .string(path), "insecure": true, "algorithm": "fsverity-sha256-12"])
                == ["created": true])
        #expect(
            try client.must(
                Self.repository + "InitRepository", ["path": .string(path), "insecure": true, "algorithm": "fsverity-sha256-12"])
                == ["created": false])
        #expect(
            try client.fails(Self.repository + "InitRepository", ["path": .string(path), "insecure": true]).0
                == Self.repository + "InternalError")
        #expect(
            try client.fails(Self.repository + "InitRepository", ["path": .string(path), "algorithm": "md5"]).0
                == Self.repository + "InvalidSpec")
        #expect(try client.fails(Self.repository + "InitRepository", ["path": "here"]).0 == Self.repository + "InvalidSpec")
        // A directory with other files is no place for a repository.
        #expect(
            try client.fails(Self.repository + "InitRepository", ["path": .string(service.folder.path.description), "insecure": true]).0
                == Self.repository + "InvalidSpec")
        let other = service.folder.path.description + "/other"
        let ensure: JSONValue = ["path": .string(other), "insecure": true]
        #expect(try client.must(Self.repository + "EnsureRepository", ensure) == ["status": "Created"])
        #expect(try client.must(Self.repository + "EnsureRepository", ensure) == ["status": "Opened"])
        #expect(
            try client.must(Self.repository + "EnsureRepository", ["path": .string(other), "algorithm": "fsverity-sha256-12"])
                == ["status": "Opened"])

        let opened = try client.must(Self.repository + "OpenRepository", ["path": .string(path)])
        #expect(opened["hash_algorithm"] == "sha256")
        let objects = try FileDescriptor.currentDirectory.status(at: ByteString(path), follow: true)
        #expect(opened["objects_device_id"]?.uint64 == objects.device)
        let handle = try #require(opened["handle"])
        #expect(try client.must(Self.repository + "ListImageRefs", ["handle": handle]) == ["images": []])
        #expect(try client.must(Self.repository + "CloseRepository", ["handle": handle]) == [:])
        for method in ["CloseRepository", "ListImageRefs", "Fsck"] {
            #expect(
                try client.fails(Self.repository + method, ["handle": handle]) == (Self.repository + "InvalidHandle", ["handle": handle]))
        }
        #expect(try client.fails(Self.oci + "ListImages", ["handle": handle]) == (Self.oci + "InvalidHandle", ["handle": handle]))

        #expect(try client.fails(Self.repository + "OpenRepository", ["path": "/nothing/here"]).0 == Self.repository + "RepoNotFound")
        for selector in [[:], ["path": .string(path), "system": true], ["user": true, "system": true], ["path": "relative"]] as [JSONValue]
        {
            #expect(try client.fails(Self.repository + "OpenRepository", selector).0 == Self.repository + "InvalidSpec", "\(selector)")
        }
        service.stop()
    }

    /// A repository from before `meta.json` is upgraded only if that is asked for.
    @Test func oldRepository() throws {
        let service = try TestService()
        let client = try service.connect()
        // Programs from before that file wrote images of format 2 only.
        let configuration = RepositoryConfiguration(erofsFormats: ErofsFormats(default: .v2), verity: .insecure)
        do { _ = try Repository.initialize(ByteString(service.repository), configuration) }
        let handle = try client.open(service.repository)
        try client.must(Self.oci + "Pull", TestService.pull(handle))
        try client.must(Self.repository + "CloseRepository", ["handle": JSONValue(handle)])
        try FileDescriptor.currentDirectory.unlink(at: ByteString(service.repository) + "/meta.json")
        let old = try client.open(service.repository)
        #expect(try client.must(Self.repository + "Fsck", ["handle": JSONValue(old), "metadata_only": true])["has_metadata"] == false)
        try client.must(Self.repository + "CloseRepository", ["handle": JSONValue(old)])
        let ensure: JSONValue = ["path": .string(service.repository), "insecure": true]
        #expect(try client.must(Self.repository + "EnsureRepository", ensure) == ["status": "Upgraded"])
        #expect(try client.must(Self.repository + "EnsureRepository", ensure) == ["status": "Opened"])
        service.stop()
    }

    /// The user's and the system's repository are those that the service was given.
    @Test func selectors() throws {
        let folder = try TestFolder("varlink-user")
        let service = try TestService { options in
            options.userRepository = folder.path + "/user"
            options.systemRepository = folder.path + "/system"
        }
        let client = try service.connect()
        for name in ["user", "system"] {
            #expect(
                try client.fails(Self.repository + "OpenRepository", .object([(key: name, value: true)].json)).0
                    == Self.repository + "RepoNotFound")
            try client.must(Self.repository + "InitRepository", ["path": .string("\(folder.path)/\(name)"), "insecure": true])
            try client.must(Self.repository + "OpenRepository", .object([(key: name, value: true)].json))
        }
        service.stop()
    }

    @Test func handlesBelongToTheConnection() throws {
        let service = try TestService { $0.mostHandles = 2 }
        let client = try service.connect()
        try client.must(Self.repository + "InitRepository", ["path": .string(service.repository), "insecure": true])
        let handle = try client.open(service.repository)
        let other = try service.connect()
        #expect(
            try other.fails(Self.oci + "ListImages", ["handle": JSONValue(handle)])
                == (Self.oci + "InvalidHandle", ["handle": JSONValue(handle)]))
        #expect(try other.open(service.repository) != handle)
        _ = try client.open(service.repository)
        #expect(
            try client.fails(Self.repository + "OpenRepository", ["path": .string(service.repository)]).0 == Self.repository
                + "InternalError")
        service.stop()
    }

    @Test func checkAndCollect() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        let report = try client.must(Self.repository + "Fsck", ["handle": number])
        #expect(report["ok"] == true && report["has_metadata"] == true && report["errors"] == [])
        let store = try Store.open(ByteString(service.repository), OpenOptions(readOnly: true))
        let found = try store.repository.check()
        #expect(report["objects_checked"] == .integer(Int64(found.objectsChecked)) && found.objectsChecked > 0)
        #expect(report["streams_checked"] == .integer(Int64(found.streamsChecked)) && report["images_checked"] == 1)
        #expect(try client.must(Self.repository + "Fsck", ["handle": number, "metadata_only": true])["objects_checked"] == 0)

        // Another handle prevents a collection, in the time that is allowed.
        #expect(try client.must(Self.repository + "Gc", ["handle": number, "dry_run": true, "roots": []])["dry_run"] == true)
        withExtendedLifetime(store) {}
        service.stop()
    }

    @Test func collection() throws {
        let service = try TestService { $0.lockPatience = .milliseconds(200) }
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        let nothing: JSONValue = ["objects_removed": 0, "objects_bytes": 0, "images_pruned": 0, "streams_pruned": 0]
        #expect(
            try client.must(Self.repository + "Gc", ["handle": number, "dry_run": false, "roots": []])
                == ["result": nothing, "dry_run": false])
        let other = try service.connect()
        _ = try other.open(service.repository)
        let busy = try client.fails(Self.repository + "Gc", ["handle": number, "dry_run": false, "roots": []])
        #expect(busy.0 == Self.repository + "InternalError")
        other.connection.shutDown()

        #expect(try client.must(Self.oci + "Untag", ["handle": number, "name": "image"]) == [:])
        let plan = try client.must(Self.repository + "Gc", ["handle": number, "dry_run": true, "roots": []])
        #expect(plan["result"]?["images_pruned"] == 1)
        let kept = try client.must(Self.repository + "Gc", ["handle": number, "dry_run": true, "roots": [.string(CorpusImage.id)]])
        #expect(kept["result"]?["images_pruned"] == 0)
        // The other connection's thread may need a moment to close its handle.
        var result: VarlinkReply
        repeat {
            result = try client.call(Self.repository + "Gc", ["handle": number, "dry_run": false, "roots": []])
        } while result.error != nil
        #expect(result.parameters["result"] == plan["result"])
        #expect(try client.must(Self.repository + "Fsck", ["handle": number])["objects_checked"] == 0)
        service.stop()
    }

    @Test func damageIsReported() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        let list = try client.must(Self.repository + "ImageObjects", ["handle": number, "name": .string(CorpusImage.id)])
        let id = try #require(list["object_ids"]?[0]?.string).dropFirst("sha512:".utf8.count)
        let file = try FileDescriptor.open(
            ByteString(service.repository + "/objects/" + id.prefix(2) + "/" + id.dropFirst(2)), [.readWrite])
        try file.writeAll([0xff, 0xfe, 0xfd])
        let report = try client.must(Self.repository + "Fsck", ["handle": number])
        #expect(report["ok"] == false && report["objects_corrupted"] == 1)
        #expect(report["errors"]?[0]?.string?.hasPrefix("fsck: object-digest-mismatch: objects/") == true)
        let check = try client.must(Self.oci + "Check", ["handle": number])
        #expect(check["ok"] == false && check["images_checked"] == 1 && check["images_corrupted"] == 1)
        #expect(check["repo"] == report)
        service.stop()
    }

    @Test func imageNames() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        let store = try Store.open(ByteString(service.repository))
        let id = try #require(ObjectID(hex: Array(CorpusImage.id.utf8)))
        try store.images.name(id, as: "named/image")
        #expect(
            try client.must(Self.repository + "ListImageRefs", ["handle": number])
                == ["images": [["name": "named/image", "digest": .string(CorpusImage.id)]]])
        let objects = try store.repository.imageObjects(id)
        #expect(!objects.isEmpty)
        for name in [CorpusImage.id, "named/image", "refs/named/image"] {
            #expect(
                try client.must(Self.repository + "ImageObjects", ["handle": number, "name": .string(name)])
                    == ["object_ids": .array(objects.map { .string("sha512:\($0.hex)") })])
        }
        #expect(
            try client.fails(Self.repository + "ImageObjects", ["handle": number, "name": "none"])
                == (Self.repository + "NoSuchRef", ["reference": "none"]))
        service.stop()
    }

    // MARK: org.composefs.Oci

    @Test func images() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        let list = try client.must(Self.oci + "ListImages", ["handle": number])["images"]?.array ?? []
        #expect(list.count == 1)
        #expect(list.first?["name"] == "image" && list.first?["manifest_digest"] == .string(CorpusImage.manifest))
        #expect(list.first?["is_container"] == true && list.first?["os"] == "linux" && list.first?["referrer_count"] == 0)
        #expect(try client.must(Self.oci + "ListImages", ["handle": number, "filter": "mag"])["images"]?.array?.count == 1)
        #expect(try client.must(Self.oci + "ListImages", ["handle": number, "filter": "other"])["images"] == [])

        let tag: JSONValue = ["handle": number, "manifest_digest": .string(CorpusImage.manifest), "name": "second"]
        #expect(try client.must(Self.oci + "Tag", tag) == [:])
        let names = try client.must(Self.oci + "ListImages", ["handle": number])["images"]?.array?.map { $0["name"] }
        #expect(names == ["image", "second"])
        #expect(try client.must(Self.oci + "Untag", ["handle": number, "name": "second"]) == [:])
        #expect(
            try client.fails(Self.oci + "Untag", ["handle": number, "name": "second"]) == (Self.oci + "NoSuchImage", ["image": "second"]))
        #expect(
            try client.fails(Self.oci + "Tag", ["handle": number, "manifest_digest": "latest", "name": "x"]).0 == Self.oci + "InvalidDigest"
        )
        let unknown = "sha256:" + String(repeating: "0", count: 64)
        #expect(
            try client.fails(Self.oci + "Tag", ["handle": number, "manifest_digest": .string(unknown), "name": "x"])
                == (Self.oci + "NoSuchImage", ["image": .string(unknown)]))

        let check = try client.must(Self.oci + "Check", ["handle": number, "image": "image"])
        #expect(check["ok"] == true && check["images_checked"] == 1 && check["images_corrupted"] == 0 && check["errors"] == [])
        #expect(check["repo"]?["ok"] == true)
        #expect(try client.fails(Self.oci + "Check", ["handle": number, "image": "none"]) == (Self.oci + "NoSuchImage", ["image": "none"]))
        service.stop()
    }

    @Test func inspect() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        for name in ["image", CorpusImage.manifest, "@" + CorpusImage.manifest] {
            let found = try client.must(Self.oci + "Inspect", ["handle": number, "image": .string(name)])
            let manifest = try #require(found["manifest"]?.string)
            #expect(ContentDigest.of(manifest.utf8).description == CorpusImage.manifest)
            let config = try #require(found["config"]?.string)
            #expect(manifest.contains(ContentDigest.of(config.utf8).description))
            #expect(found["composefs_erofs"] == .string(CorpusImage.id) && found["composefs_boot_erofs"] == .null)
            #expect(found["referrers"] == [])
        }
        #expect(
            try client.fails(Self.oci + "Inspect", ["handle": number, "image": "none"]) == (Self.oci + "NoSuchImage", ["image": "none"]))

        let compute: JSONValue = ["handle": number, "image": "image", "bootable": false]
        #expect(try client.must(Self.oci + "ComputeId", compute) == ["image_id": .string(CorpusImage.id)])
        var other = compute
        other["xattrs"] = "KeepUserXattrs"
        _ = try client.must(Self.oci + "ComputeId", other)
        other["xattrs"] = "All"
        #expect(try client.fails(Self.oci + "ComputeId", other) == ("org.varlink.service.InvalidParameter", ["parameter": "xattrs"]))
        other = compute
        other["verity"] = .string(CorpusImage.id)
        #expect(try client.fails(Self.oci + "ComputeId", other).0 == Self.oci + "InvalidDigest")
        let store = try Store.open(ByteString(service.repository), OpenOptions(readOnly: true))
        other["verity"] = .string(try store.images.open("image").image.configStream.hex)
        #expect(try client.must(Self.oci + "ComputeId", other) == ["image_id": .string(CorpusImage.id)])
        service.stop()
    }

    @Test func mountsNeedTheirDescriptors() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        let mount: JSONValue = ["handle": number, "name": .string(CorpusImage.id), "options": ["overlay": true]]
        #expect(try client.fails(Self.repository + "Mount", mount).0 == Self.repository + "InvalidSpec")
        let writable: JSONValue = ["handle": number, "name": .string(CorpusImage.id), "options": ["read_write": true]]
        #expect(try client.fails(Self.repository + "Mount", writable).0 == Self.repository + "InvalidSpec")
        let image: JSONValue = ["handle": number, "image": "image", "bootable": false, "options": [:]]
        let directory = SharedDescriptor(try FileDescriptor.open(service.folder.path, [.readOnly, .directory]))
        #expect(try client.fails(Self.oci + "OciMount", image, [directory]).0 == Self.oci + "InvalidRequest")
        #expect(
            try client.fails(Self.oci + "OciMount", ["handle": number, "image": "none", "bootable": false, "options": [:]])
                == (Self.oci + "NoSuchImage", ["image": "none"]))
        #expect(
            try client.fails(Self.oci + "OciMount", ["handle": number, "image": "image", "bootable": true, "options": [:]]).0
                == Self.oci + "InternalError")
        #expect(
            try client.fails(Self.oci + "OciMount", ["handle": number, "image": "image", "bootable": false, "options": ["suid": true]])
                == ("org.varlink.service.InvalidParameter", ["parameter": "options.suid"]))
        service.stop()
    }

    /// The descriptor is a mount that this process attaches. Its files are those of the image.
    @Test func mounts() throws {
        try requireMounting()
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let store = try Store.open(ByteString(service.repository), OpenOptions(readOnly: true))
        let tree = try store.images.tree(of: store.images.open("image").image)
        for (method, extra) in [
            ("org.composefs.Repository.Mount", ["name": .string(CorpusImage.id)] as JSONValue),
            ("org.composefs.Oci.OciMount", ["image": "image", "bootable": false]),
        ] {
            var parameters: JSONValue = ["handle": JSONValue(handle), "options": [:]]
            for (key, value) in extra.object ?? JSONObject() { parameters[key] = value }
            try client.send(Client.message(method, parameters))
            let (reply, descriptors) = try #require(try client.receive())
            #expect(reply.error == nil && reply.parameters == [(key: "fd_index", value: 0)].json, "\(reply)")
            let mount = try #require(descriptors.first)
            #expect(descriptors.count == 1)
            let target = service.folder.path + "/mounted"
            _ = try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: target, mode: 0o755)
            try FileDescriptor.attachMount(mount.descriptor.raw, at: target)
            let names = try FileDescriptor.open(target, [.readOnly, .directory]).entries().map(\.name).sorted()
            let isReadOnly = try FileDescriptor.open(target, [.readOnly, .directory]).fileSystemStatus().isReadOnly
            try FileDescriptor.unmount(target, lazily: true)
            #expect(names == tree.entries(of: FileTree.root).map(tree.name(of:)).sorted() && !names.isEmpty)
            #expect(isReadOnly)
        }
        service.stop()
    }

    /// Changes are in the upper directory that the client has passed.
    @Test func writableMount() throws {
        try requireMounting()
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let (upper, work, target) = (service.folder.path + "/upper", service.folder.path + "/work", service.folder.path + "/mounted")
        for path in [upper, work, target] { try FileDescriptor.makeDirectory(path, mode: 0o755) }
        let passed = try [upper, work].map { SharedDescriptor(try FileDescriptor.open($0, [.readOnly, .directory])) }
        try client.send(
            Client.message(
                Self.oci + "OciMount",
                ["handle": JSONValue(handle), "image": "image", "bootable": false, "options": ["overlay": true, "read_write": true]]),
            passed)
        let (reply, descriptors) = try #require(try client.receive())
        let mount = try #require(descriptors.first, "\(reply)")
        try FileDescriptor.attachMount(mount.descriptor.raw, at: target)
        defer { try? FileDescriptor.unmount(target, lazily: true) }
        try FileDescriptor.open(target + "/new", [.writeOnly, .create]).writeAll(Array("new".utf8))
        #expect(try FileDescriptor.open(upper + "/new", .readOnly).readAll(limit: 10) == Array("new".utf8))
        service.stop()
    }
}

extension [(key: String, value: JSONValue)] {
    var json: JSONObject { JSONObject(self) }
}
