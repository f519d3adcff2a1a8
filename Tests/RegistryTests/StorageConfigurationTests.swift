import ComposefsBytes
import Glibc
import Testing

@testable import ComposefsRegistry

/// Facts from containers-storage.conf(5) and from the library that reads it.
@Suite struct StorageConfigurationTests {
    /// Writes files below a directory that stands for the root of the file system, with a home in it.
    private func roots(
        _ files: [String: String], _ variables: [String: String] = [:], userID: UInt32 = 0
    ) throws -> [String] {
        try withTemporaryDirectory { root in
            for (path, text) in files {
                var parent = root
                for part in path.split(separator: "/").dropLast() {
                    parent += "/" + part
                    _ = mkdir(parent, 0o700)
                }
                try writeFile(root + "/" + path, text)
            }
            var values = variables.mapValues { $0.replacingOccurrence(of: "ROOT", with: root) }
            values["HOME"] = values["HOME"] ?? root + "/home"
            let environment = Environment(values, systemRoot: root, userID: userID)
            return try StorageConfiguration(environment).roots.map { $0.description.replacingOccurrence(of: root, with: "ROOT") }
        }
    }

    private let usual = ["ROOT/home/.local/share/containers/storage", "ROOT/var/lib/containers/storage"]

    @Test func usualLocations() throws {
        #expect(try roots([:]) == usual)
        #expect(try roots([:], ["XDG_DATA_HOME": "/data"]) == ["/data/containers/storage"] + usual)
        #expect(try roots(["etc/containers/storage.conf": ""]) == usual)
        #expect(try roots(["etc/containers/storage.conf": "[storage]\ngraphroot = \"\""]) == usual)
    }

    @Test func graphRoots() throws {
        let etc = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/etc-root\"\n"
        let usr = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/usr-root\"\n"
        #expect(try roots(["usr/share/containers/storage.conf": usr]) == ["/usr-root"])
        #expect(try roots(["usr/share/containers/storage.conf": usr, "etc/containers/storage.conf": etc]) == ["/etc-root"])
        let home = ["home/.config/containers/storage.conf": "[storage]\ngraphroot = \"${HOME}/own/$UID\""]
        #expect(try roots(home, userID: 1000) == ["ROOT/home/own/1000"])
        #expect(try roots(["etc/containers/storage.conf": etc], ["CONTAINERS_STORAGE_ROOT": "/first"]) == ["/first", "/etc-root"])
        #expect(
            try roots(
                ["my.conf": "[storage]\ngraphroot = \"/mine\"", "etc/containers/storage.conf": etc],
                ["CONTAINERS_STORAGE_CONF": "ROOT/my.conf"]) == ["/mine"])
        #expect(
            try roots(
                ["over.conf": "[storage]\ngraphroot = \"/over\"", "etc/containers/storage.conf": etc],
                ["CONTAINERS_STORAGE_CONF_OVERRIDE": "ROOT/over.conf"]) == ["/over"])
    }

    /// The system's storage belongs to root. Other users have theirs at home, or in the directory that the system's file names.
    @Test func otherUsers() throws {
        let etc = "[storage]\ngraphroot = \"/etc-root\"\n"
        #expect(try roots(["etc/containers/storage.conf": etc], userID: 1000) == usual)
        let path = "rootless_storage_path = \"/users/$USER/$UID\"\n"
        #expect(
            try roots(["etc/containers/storage.conf": etc + path], ["USER": "me"], userID: 1000) == ["/users/me/1000"] + usual)
        #expect(try roots(["etc/containers/storage.conf": etc + path]) == ["/etc-root"])
    }

    @Test func additionalStores() throws {
        let etc = """
            [storage]
            graphroot = "/etc-root"
            imagestore = "/images"
            [storage.options]
            additionalimagestores = ["/more", "$HOME/yet"]
            size = ""
            """
        #expect(
            try roots(["etc/containers/storage.conf": etc], ["STORAGE_OPTS": "overlay.imagestore=/opt,additionalimagestore=/add,x=/y"])
                == ["/images", "/etc-root", "/more", "ROOT/home/yet", "/opt", "/add"])
    }

    @Test func dropIns() throws {
        let main = "[storage]\ngraphroot = \"/main\"\n[storage.options]\nadditionalimagestores = [\"/one\"]"
        let files = [
            "usr/share/containers/storage.conf": main,
            "usr/share/containers/storage.conf.d/10-a.conf": "[storage]\ngraphroot = \"/hidden\"",
            "etc/containers/storage.conf.d/10-a.conf": "[storage]\ngraphroot = \"/ten\"",
            "etc/containers/storage.conf.d/20-b.conf": "[storage.options]\nadditionalimagestores = [\"/two\", {append=true}]",
            "etc/containers/storage.conf.d/30-c.txt": "[storage]\ngraphroot = \"/no\"",
            "etc/containers/storage.rootless.conf.d/40-d.conf": "[storage]\ngraphroot = \"/rootless\"",
        ]
        #expect(try roots(files) == ["/ten", "/one", "/two"])
        #expect(try roots(files, userID: 1000) == ["/rootless", "/one", "/two"])
    }

    @Test func refused() throws {
        for (text, words) in [
            ("[storage]\ngraphroot = 7", "storage.conf:2: graphroot must be a string"), ("[storage\n", "storage.conf:1:"),
            ("[storage.options]\nadditionalimagestores = \"/x\"", "storage.conf:2: additionalimagestores must be a list"),
            ("[storage.options]\nadditionalimagestores = [7]", "storage.conf:2: additionalimagestores must be a list"),
            ("[storage]\ndriver = \"vfs\"", "the storage driver vfs"),
        ] {
            let error = registryError { _ = try roots(["etc/containers/storage.conf": text]) }
            #expect(error?.description.contains(words) == true, "\(String(describing: error))")
        }
        let error = registryError { _ = try roots([:], ["CONTAINERS_STORAGE_CONF": "ROOT/none.conf"]) }
        #expect(error?.description.contains("none.conf: No such file") == true)
        #expect(registryError { _ = try roots([:], ["STORAGE_DRIVER": "btrfs"]) }?.description.contains("btrfs") == true)
    }
}

extension String {
    fileprivate func replacingOccurrence(of text: String, with other: String) -> String {
        split(separator: text, omittingEmptySubsequences: false).joined(separator: other)
    }
}
