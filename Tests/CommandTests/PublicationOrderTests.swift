import ComposefsJSON
import Glibc
import Testing

/// The names of an image appear in the order images, layers, config, manifest, tag: what exists is complete, whenever a pull or an upgrade is
/// stopped.
@Suite(.enabled(if: isRoot && hasProgram("unshare"), "needs root"))
struct PublicationOrderTests {
    private static let order = ["image", "layer", "config", "manifest", "tag"]

    /// A name on which something is mounted cannot be replaced, so the command stops there.
    @Test(arguments: order.indices) func stoppedAt(_ index: Int) throws {
        let sample = try ContractStore()
        let archive = tarArchive([TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/f", content: [1])])
        let image = try sample.pull(LayoutBuilder(layers: [archive]), as: "t")
        let id = try #require(try sample.succeed(["inspect", "t"]).json()["imageIds"]?["v1"]?.string)
        let names = [
            "images/" + id, "streams/oci-layer-" + image.diffIDs[0], "streams/oci-config-" + image.config,
            "streams/oci-manifest-" + image.manifest, "streams/refs/oci/t",
        ]
        let store = try ContractStore()
        let script = #"""
            mkdir -p "$(dirname "$1/$2")"; touch "$1/$2"; mount --bind "$1/$2" "$1/$2"
            exec "$CFSOCI" pull "oci:$3" t --repo "$1"
            """#
        let result = try launch(
            "unshare", ["-m", "bash", "-ec", script, "bash", store.path, names[index], sample.layoutPath("t")],
            environment: ["CFSOCI=" + Cfsoci.binary])
        #expect(result.status == 1 && result.error.contains("\(names[index]): Device or resource busy"), "\(result.error)")
        let files = store.files
        let present = names.enumerated().filter { $0.offset != index && files.contains($0.element) }.map { Self.order[$0.offset] }
        #expect(present == Array(Self.order[..<index]))
        // Without the obstacle, the next pull completes the image.
        #expect(try store.run(["pull", "oci:" + sample.layoutPath("t"), "t"]).status == 0)
        #expect(try store.run(["fsck", "--deep"]).status == 0)
    }
}
