// Uses a client that openapi-generator generated. As use_python.py; batches are a Bundle, because
// that generator takes one of the content types.
import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.BatchesApi;
import org.openapitools.client.api.ReadingBackApi;
import org.openapitools.client.api.UploadsApi;
import org.openapitools.client.model.Envelope;
import org.openapitools.client.model.UploadList;
import org.openapitools.client.model.UploadStatus;

public class UseJava {
  public static void main(String[] arguments) throws Exception {
    String user = arguments[2];
    Path folder = Path.of(arguments[3]);
    ApiClient client = new ApiClient();
    client.updateBaseUri(arguments[0]);
    client.setRequestInterceptor(
        request -> request.header("Authorization", "Bearer " + arguments[1]));
    UploadsApi uploads = new UploadsApi(client);
    ReadingBackApi reading = new ReadingBackApi(client);
    BatchesApi batches = new BatchesApi(client);
    ObjectMapper json = client.getObjectMapper();

    Map<String, Object> read = new HashMap<>();
    List<String> statuses = new ArrayList<>();
    for (String version : List.of("R4", "DSTU2")) {
      Map<String, Object> resource =
          json.readValue(Files.readString(folder.resolve(version + ".json")), Map.class);
      Envelope envelope = new Envelope().user(user).fhirVersion(version).resource(resource);
      UploadStatus upload =
          uploads.submitUpload(
              envelope, null, null, null, null, null, null, "java-" + version);
      statuses.add(await(uploads, upload.getId()));
      String type = (String) resource.get("resourceType");
      read.put(version, reading.readFhir(user, version, type, (String) resource.get("id")));
    }

    List<Object> entries = new ArrayList<>();
    for (String line : Files.readAllLines(folder.resolve("batch.ndjson")))
      entries.add(Map.of("resource", json.readValue(line, Map.class)));
    Map<String, Object> bundle =
        Map.of("resourceType", "Bundle", "type", "collection", "entry", entries);
    var batch = batches.submitBatch(bundle, user, null, "R4", null, null);
    for (var line : batch.getLines()) statuses.add(await(uploads, line.getId()));
    int lines = batches.listBatchLines(batch.getId(), null, null).getLines().size();

    List<Integer> pages = new ArrayList<>();
    UUID after = null;
    while (true) {
      UploadList page =
          uploads.listUploads(
              user, null, null, null, null, null, null, null, null, after, 2);
      pages.add(page.getUploads().size());
      if (page.getNext() == null) break;
      after = page.getUploads().get(page.getUploads().size() - 1).getId();
    }
    System.out.println(
        json.writeValueAsString(
            Map.of("read", read, "statuses", statuses, "pages", pages, "lines", lines)));
  }

  private static String await(UploadsApi uploads, UUID id) throws Exception {
    while (true) {
      UploadStatus status = uploads.getUpload(id, new BigDecimal(30), null);
      if (status.getFinal()) return status.getStatus().getValue();
    }
  }
}
