import ComposefsBytes
import ComposefsHashing
import ComposefsOCI
import Testing

@testable import ComposefsCommandSupport
@testable import ComposefsCommands

/// Text and JSON of the repository's reports, which scripts rely on.
@Suite struct ReportTests {
    private let object = VerityHasher.objectID(of: UnsafeRawBufferPointer(start: nil, count: 0), .sha256)

    @Test func soundRepository() {
        var report = FsckReport()
        report.hasMetadata = true
        report.objectsChecked = 3
        report.streamsChecked = 2
        #expect(report.counts == ["meta.json: ok", "objects: 3/3 ok", "streams: 2/2 ok", "images: 0/0 ok"])
        #expect(
            report.json.description
                == #"{"ok":true,"hasMetadata":true,"objectsChecked":3,"objectsCorrupted":0,"streamsChecked":2,"streamsCorrupted":0,"imagesChecked":0,"imagesCorrupted":0,"brokenLinks":0,"missingObjects":0,"errors":[]}"#
        )
    }

    @Test func damagedRepository() {
        var report = FsckReport()
        report.hasMetadata = true
        report.objectsChecked = 3
        report.objectsCorrupted = 1
        report.notes = ["a note"]
        report.add(FsckProblem(.objectDigestMismatch, "objects/ab/cd", object: object))
        report.add(FsckProblem(.brokenSymlink, "streams/layer"))
        report.add(FsckProblem(.missingNamedReference, "streams/manifest", object: object, reference: "layer"))
        #expect(
            report.counts == [
                "meta.json: ok", "objects: 2/3 ok", "streams: 0/0 ok", "images: 0/0 ok", "broken symlinks: 1", "missing objects: 1",
                "note: a note",
            ])
        #expect(
            report.problems[0].json.description == #"{"type":"object-digest-mismatch","path":"objects/ab/cd","measured":"\#(object)"}"#)
        #expect(
            report.problems[2].json.description
                == #"{"type":"missing-named-ref","path":"streams/manifest","refName":"layer","objectId":"\#(object)"}"#)
        report.add(FsckProblem(.metadataDamaged, "meta.json", detail: "why"))
        #expect(report.counts[0] == "meta.json: error")
        let lines = CheckedStore(report: StoreReport(repository: report, images: ImageReport()), steps: []).lines
        #expect(lines.contains("status: 4 error(s)") && lines.contains("  - \(report.problems[0])"))
    }

    @Test func garbage() {
        var report = GarbageReport()
        report.objectsRemoved = 1
        report.bytesRemoved = 1
        report.danglingReferences = ["images/refs/dead", "streams/refs/oci/dead"]
        #expect(
            report.json.description
                == #"{"objectsRemoved":1,"bytesRemoved":1,"streamsRemoved":0,"imagesRemoved":0,"temporariesRemoved":0,"danglingReferences":["images/refs/dead","streams/refs/oci/dead"]}"#
        )
        #expect(CollectedGarbage(report: report, isDryRun: true).lines[0] == "Dry run: nothing was removed")
        #expect(CollectedGarbage(report: report, isDryRun: false).lines[0] == "objects      1 removed, 1 B")
    }
}
