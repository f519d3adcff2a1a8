internal import ComposefsBytes
internal import ComposefsEROFS
internal import ComposefsFileTree
internal import ComposefsHashing

extension Repository {
    func add(imageProblems: [[FsckProblem]], _ report: inout FsckReport) {
        report.imagesChecked += imageProblems.count
        for problems in imageProblems {
            if problems.contains(where: { $0.kind != .imageMissingObject }) { report.imagesCorrupted += 1 }
            for problem in problems { report.add(problem) }
        }
    }

    func problems(ofImage link: Inventory.Link, _ objects: [ObjectID: UInt64]) -> [FsckProblem] {
        let path = Layout.images + "/" + link.name
        var problems: [FsckProblem] = []
        guard let id = check(link, path, objects, &problems) else { return problems }
        if ObjectID(hex: link.name.bytes) != id {
            problems.append(FsckProblem(.linkMismatch, path, object: id, detail: "is another object than the name says"))
        }
        let bytes: [UInt8]
        do throws(RepositoryError) {
            bytes = try readObject(id, limit: Self.imageLimit)
        } catch {
            if case .objectMissing = error {
                problems.append(FsckProblem(.imageOpenFailed, path, detail: Self.detail(error)))
            } else {
                problems.append(FsckProblem(.imageReadFailed, path, detail: Self.detail(error)))
            }
            return problems
        }
        do {
            let image = try ErofsImage(bytes, algorithm: algorithm)
            var last: ObjectID?
            // Only the tree has the files' names.
            var needsTree = !image.hasTree
            for reference in image.references {
                if let actual = objects[reference.id] {
                    if let size = reference.size, size != actual { needsTree = true }
                } else if reference.id != last {
                    problems.append(FsckProblem(.imageMissingObject, path, object: reference.id))
                }
                last = reference.id
            }
            if needsTree {
                for fault in Self.wrongSizes(in: try image.tree(), objects) {
                    problems.append(FsckProblem(.imageInvalid, path, detail: fault))
                }
            }
            try image.checkMetadata()
        } catch {
            problems.append(FsckProblem(.imageInvalid, path, detail: "\(error)"))
        }
        return problems
    }

    /// Files with another size in the image than their objects have: a mount would show a file that is cut or that ends in zeros.
    private static func wrongSizes(in tree: FileTree, _ objects: [ObjectID: UInt64]) -> [String] {
        var faults: [String] = []
        // A list instead of recursion, because the image determines the depth of the tree.
        var pending: [(path: ByteString, inode: FileTree.InodeID)] = [("", FileTree.root)]
        while let next = pending.popLast() {
            for entry in tree.entries(of: next.inode) {
                let inode = tree.inode(of: entry)
                if tree.isDirectory(inode) {
                    pending.append((next.path + "/" + tree.name(of: entry), inode))
                } else if case .external(let id, let size) = tree.content(of: inode), let actual = objects[id], actual != size {
                    faults.append("\(next.path)/\(tree.name(of: entry)) has \(size) bytes in the image, its object \(actual)")
                }
            }
        }
        return faults
    }
}
