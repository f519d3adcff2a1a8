import ComposefsBytes
import ComposefsDumpfile
import ComposefsFileTree
import Testing

@testable import ComposefsImageStore
@testable import ComposefsTar

private func entry(_ path: ByteString, _ kind: TarEntry.Kind, to target: ByteString = "") -> TarEntry {
    TarEntry(
        path: path, linkTarget: target, kind: kind, mode: kind == .directory ? 0o750 : 0o644, uid: 0, gid: 0, mtime: (9, 0), size: 0,
        deviceMajor: 0, deviceMinor: 0, extendedAttributes: [], headerOffset: 512)
}

/// Entries in short: `d/` is a directory, `l>t` a symbolic link, `h=t` a hard link, `f` a file with its own path as text.
private func item(_ text: String) -> (TarEntry, LeafContent) {
    let path = ByteString(text)
    if text.hasSuffix("/") { return (entry(path, .directory), .none) }
    for (mark, kind) in [(">", .symbolicLink), ("=", .hardLink)] as [(Character, TarEntry.Kind)] {
        guard let at = text.firstIndex(of: mark) else { continue }
        return (entry(ByteString(String(text[..<at])), kind, to: ByteString(String(text[text.index(after: at)...]))), .none)
    }
    return (entry(path, .regular), .inline(path))
}

private func merge(_ layers: [String], _ merger: LayerMerger = LayerMerger()) throws(MergeError) -> FileTree {
    var merger = merger
    for layer in layers {
        merger.beginLayer()
        for text in layer.split(separator: " ") {
            let (entry, content) = item(String(text))
            try merger.add(entry, content: content)
        }
        try merger.endLayer()
    }
    return merger.finish()
}

/// The paths of a tree, in order; files with `=` and their content if that is not their own path, links with `>` and their target.
private func paths(_ layers: String...) throws -> String {
    let tree = try merge(layers)
    var result: [String] = []
    var pending: [(FileTree.InodeID, String)] = [(FileTree.root, "")]
    while let (directory, prefix) = pending.popLast() {
        for entry in tree.entries(of: directory) {
            let path = prefix + tree.name(of: entry).description
            switch tree.content(of: tree.inode(of: entry)) {
            case nil:
                result.append(path + "/")
                pending.append((tree.inode(of: entry), path + "/"))
            case .symbolicLink(let target)?: result.append("\(path)>\(target)")
            case .inline(let text)?: result.append("\(text)" == path ? path : "\(path)=\(text)")
            default: result.append(path + "?")
            }
        }
    }
    return result.sorted().joined(separator: " ")
}

private func fault(_ layers: String...) -> String? {
    do throws(MergeError) {
        _ = try merge(layers)
        return nil
    } catch {
        return error.reason
    }
}

/// Whiteouts of a layer that has put a directory in the place of a lower layer's symbolic link.
@Suite struct MergeThroughLinkTests {
    static let lower = "target/ target/keep target/sub/ target/sub/x link>/target"
    static let kept = "target/ target/keep target/sub/ target/sub/x"

    @Test(arguments: [
        "link/ link/.wh..wh..opq link/new", "link/.wh..wh..opq link/ link/new", "link/new link/.wh..wh..opq link/",
        "link/ link/.wh.keep link/.wh.sub link/new", "link/.wh.keep link/ link/new", "link/new link/ link/.wh.keep",
    ])
    func theTargetStays(upper: String) throws {
        #expect(try paths(Self.lower, upper) == "link/ link/new " + Self.kept)
    }

    @Test(arguments: [
        "link/ link/sub/ link/sub/.wh..wh..opq", "link/sub/.wh..wh..opq link/sub/ link/", "link/ link/sub/ link/sub/.wh.x",
        "link/sub/ link/ link/sub/.wh.x",
    ])
    func deeper(upper: String) throws { #expect(try paths(Self.lower, upper) == "link/ link/sub/ " + Self.kept) }

    @Test func theLinkIsInAnotherDirectory() throws {
        let lower = "usr/ usr/lib/ usr/lib/x a/ a/b>../usr"
        for upper in ["a/b/ a/b/lib/ a/b/lib/.wh.x", "a/b/lib/.wh.x a/b/lib/ a/b/", "a/b/.wh.lib a/b/ a/b/lib/"] {
            #expect(try paths(lower, upper) == "a/ a/b/ a/b/lib/ usr/ usr/lib/ usr/lib/x")
        }
        #expect(
            try paths("usr/ var/ var/opt/ var/opt/app opt>var/opt", "opt/ opt/.wh..wh..opq opt/mine")
                == "opt/ opt/mine usr/ var/ var/opt/ var/opt/app")
        // Also if the layer before it replaced the link.
        #expect(try paths(Self.lower, "link/ link/old", "link/.wh.old link/.wh.keep") == "link/ " + Self.kept)
    }

    /// A file or a link in the place of the directory is no directory of a lower layer either.
    @Test func otherReplacements() throws {
        #expect(try paths("d/ d/a t/ t/a", "d>t d/.wh.a") == "d>t t/ t/a")
        #expect(try paths("d/ d/a t/ t/a", "d/.wh.a d>t") == "d>t t/ t/a")
        #expect(try paths("d/ d/a", "d d/.wh.a") == "d")
        #expect(try paths("f", "f/.wh.x f/ f/y") == "f/ f/y")
        #expect(try paths("f", "f/y f/") == "f/ f/y")
        // Hidden links lead nowhere.
        for upper in [".wh.link link/.wh.keep", "link/.wh.keep .wh.link"] { #expect(try paths(Self.lower, upper) == Self.kept) }
    }

    /// What the layer does not replace is followed, by entries and whiteouts alike.
    @Test func linksThatStay() throws {
        #expect(try paths(Self.lower, "link/.wh.keep link/new") == "link>/target target/ target/new=link/new target/sub/ target/sub/x")
        #expect(try paths(Self.lower, "link/.wh..wh..opq link/new") == "link>/target target/ target/new=link/new")
        #expect(try paths(Self.lower, "link/new link/.wh..wh..opq h=link/new") == "h=link/new link>/target target/ target/new=link/new")
    }
}

@Suite struct MergeOwnEntryTests {
    /// What a layer hides it may still link to, whichever comes first.
    @Test func linksToWhatIsHidden() throws {
        for upper in ["b=a .wh.a", ".wh.a b=a"] { #expect(try paths("a", upper) == "b=a") }
        for upper in ["b=d/a .wh.d", ".wh.d b=d/a", "d/.wh..wh..opq d/b=d/a", "d/b=d/a d/.wh..wh..opq"] {
            let names = try paths("d/ d/a d/c", upper)
            #expect(names == (upper.contains("opq") ? "d/ d/b=d/a" : "b=d/a"))
        }
        // The new file of the name, once there is one.
        #expect(try paths("a", "b=a a .wh.a") == "a b=a")
        #expect(try merge(["a", "b=a .wh.a"]).linkCount(of: try #require(try merge(["a", "b=a .wh.a"]).lookup(path: "b"))) == 1)
        // The same name again is the layer's own.
        for upper in ["a=a .wh.a", ".wh.a a=a"] { #expect(try paths("a", upper) == "a") }
        #expect(fault("d/ d/a", "d b=d/a") == "its target \"d/a\" is not in the image")
    }

    @Test func hiddenDirectories() throws {
        let lower = "d/ d/a d/e/ d/e/f d/e/g/ d/e/g/h"
        for upper in [".wh.d d/e/new", "d/e/new .wh.d"] {
            let tree = try merge([lower, upper])
            #expect(try paths(lower, upper) == "d/ d/e/ d/e/new")
            // Neither is described by the layer.
            for path: ByteString in ["d", "d/e"] {
                #expect(tree.metadata(of: try #require(tree.lookup(path: path))) == Metadata(permissions: 0o755))
            }
        }
        let described = try merge([lower, "d/e/ .wh.d"])
        #expect(described.permissions(of: try #require(described.lookup(path: "d/e"))) == 0o750)
        #expect(described.permissions(of: try #require(described.lookup(path: "d"))) == 0o755)
        #expect(try paths(lower, "d/.wh..wh..opq d/e/ d/e/f") == "d/ d/e/ d/e/f")
        #expect(try paths(lower, "d/e/.wh.g d/e/g/i d/.wh.a") == "d/ d/e/ d/e/f d/e/g/ d/e/g/i")
    }

    /// A whiteout has one name in an image; aufs and overlayfs give all of them one inode.
    @Test func linkedDevices() throws {
        var merger = LayerMerger()
        merger.beginLayer()
        try merger.add(entry("w", .characterDevice), content: .none)
        try merger.add(entry("v", .hardLink, to: "w"), content: .none)
        try merger.endLayer()
        let tree = merger.finish()
        for name: ByteString in ["w", "v"] {
            let inode = try #require(tree.lookup(path: name))
            #expect(tree.isWhiteout(inode) && tree.linkCount(of: inode) == 1 && tree.modified(of: inode).seconds == 9)
        }
    }

    /// aufs keeps files with several names in a farm of links, and other things that are no part of an image.
    @Test func aufs() throws {
        let layer =
            ".wh..wh.aufs .wh..wh.orph/ .wh..wh.orph/x .wh..wh.plnk/ .wh..wh.plnk/12.34 a=.wh..wh.plnk/12.34 d/ d/b=/.wh..wh.plnk/12.34"
        #expect(try paths(layer) == "a=.wh..wh.plnk/12.34 d/ d/b=.wh..wh.plnk/12.34")
        #expect(try paths("x", layer) == "a=.wh..wh.plnk/12.34 d/ d/b=.wh..wh.plnk/12.34 x")
        let tree = try merge([layer])
        let inode = try #require(tree.lookup(path: "a"))
        #expect(tree.lookup(path: "d/b") == inode && tree.linkCount(of: inode) == 2)
        // A layer's farm is its own.
        #expect(fault(layer, "c=.wh..wh.plnk/12.34") == "its target \".wh..wh.plnk/12.34\" is not in the image")
        #expect(try paths("d/ d/a", "d/.wh..wh.foo d/.wh..wh.dir/ d/.wh..wh.dir/x .wh..wh.aufs") == "d/ d/a")
        #expect(fault(".wh..wh..opq/x") == "it lies below a whiteout")
    }
}

/// A small image must not take much memory or time.
@Suite struct MergeBudgetTests {
    @Test func droppedAttributesTakeNoMemory() throws {
        var merger = LayerMerger(.allowlistOnly)
        merger.beginLayer()
        for index in 0..<100 {
            var file = entry(ByteString("f\(index)"), .regular)
            file.extendedAttributes = [
                ("user.a", ByteString([UInt8](repeating: UInt8(index), count: 60_000))), ("security.capability", "c"),
            ]
            try merger.add(file, content: .none)
        }
        try merger.endLayer()
        let tree = merger.finish()
        #expect(tree.attributeBytes == 20)
        #expect(tree.extendedAttributes(of: try #require(tree.lookup(path: "f7"))).map(\.name) == ["security.capability"])
    }

    @Test func memory() throws {
        func attempt(_ count: Int, _ limit: UInt64, _ make: (Int) -> (TarEntry, LeafContent), layers: Int = 1) -> MergeError? {
            var merger = LayerMerger(.keepUserXattrs, memoryLimit: limit)
            do throws(MergeError) {
                for _ in 0..<layers {
                    merger.beginLayer()
                    for index in 0..<count {
                        let (entry, content) = make(index)
                        try merger.add(entry, content: content)
                    }
                    try merger.endLayer()
                }
                return nil
            } catch {
                return error
            }
        }
        let target = ByteString([UInt8](repeating: 0x78, count: 4000))
        let links: (Int) -> (TarEntry, LeafContent) = { (entry(ByteString("l\($0)"), .symbolicLink, to: target), .none) }
        #expect(attempt(100, 2_000_000, links) == nil)
        let error = attempt(1000, 2_000_000, links)
        #expect(error?.memoryLimit == 2_000_000 && error?.path == "l162")
        #expect(error?.reason == "up to it the image's tree takes more than 2000000 bytes of memory")
        // What is replaced took memory too.
        #expect(attempt(100, 2_000_000, links, layers: 2) != nil)
        #expect(attempt(1000, 2_000_000, { (item("f\($0)").0, .inline(ByteString([UInt8](repeating: 1, count: 64)))) }) == nil)
        #expect(attempt(5000, 2_000_000, { (item("f\($0)").0, .inline(ByteString([UInt8](repeating: 1, count: 64)))) }) != nil)
        #expect(
            attempt(
                1000, 2_000_000,
                { index in
                    var file = entry(ByteString("f\(index)"), .regular)
                    file.extendedAttributes = [("user.a", ByteString([UInt8](repeating: 1, count: 60_000)))]
                    return (file, .none)
                }) == nil)
        #expect(
            attempt(
                1000, 2_000_000,
                { index in
                    var file = entry(ByteString("f\(index)"), .regular)
                    file.extendedAttributes = [("user.a", ByteString([UInt8](repeating: UInt8(index % 256), count: 60_000)))]
                    return (file, .none)
                }) != nil)
        // Whiteouts, and entries that wait for the layer's end.
        #expect(attempt(10_000, 2_000_000, { item("d/.wh.name\($0)") }) == nil)
        #expect(attempt(30_000, 2_000_000, { item("d/.wh.name\($0)") }, layers: 2) != nil)
        #expect(attempt(4000, 2_000_000, { item($0 == 0 ? "t>s" : "t/x") }, layers: 2) != nil)
    }

    /// Entries that wait for the layer's end are counted when they come, because they are in memory from then on.
    @Test func waitingEntries() throws {
        var merger = LayerMerger(nil, memoryLimit: 2_000_000)
        merger.beginLayer()
        let (file, content) = item("t")
        try merger.add(file, content: content)
        try merger.endLayer()
        merger.beginLayer()
        let error = #expect(throws: MergeError.self) {
            for index in 0..<10_000 {
                let (entry, content) = item("t/x\(index)")
                try merger.add(entry, content: content)
            }
        }
        #expect(error?.memoryLimit == 2_000_000)
    }

    @Test func longWays() throws {
        // 40 links on the way to each of 20,000 files: found once.
        let links = (0..<40).map { "l\($0)>\($0 == 0 ? "end" : "l\($0 - 1)")" }.joined(separator: " ")
        let files = (0..<20_000).map { "l39/f\($0)" }.joined(separator: " ")
        let tree = try merge(["end/ " + links + " " + files], LayerMerger(implicitLimit: 10, stepLimit: 25_000))
        #expect(tree.entries(of: try #require(tree.lookup(path: "end"))).count == 20_000)
        // In the next layer as well.
        _ = try merge(["end/ " + links, files], LayerMerger(implicitLimit: 10, stepLimit: 25_000))
        // Two ways in turn, and one that is never the same.
        let turns = (0..<5000).map { "l\(38 + $0 % 2)/f\($0)" }.joined(separator: " ")
        _ = try merge(["end/ " + links + " " + turns], LayerMerger(implicitLimit: 10, stepLimit: 1000))
        let many = (0..<200).map { "x\($0)>l38" }.joined(separator: " ")
        let each = (0..<200).map { "x\($0)/f" }.joined(separator: " ")
        let error = #expect(throws: MergeError.self) {
            _ = try merge(["end/ " + links + " " + many + " " + each], LayerMerger(implicitLimit: 10, stepLimit: 2000))
        }
        #expect(error?.reason == MergeBudget.tooManySteps)
    }
}
