/* Loads a SavedModel in C and shows it images, one a request:
 *
 *     serve EXPORT INPUT:I CLASSES:I NAMES:I PROBABILITIES:I ERROR:I FILE...
 *
 * with the signature's tensors by name. Prints a line a image: its error, or classes with
 * names and probabilities. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static TF_Status *status;

static void check(const char *what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

static TF_Output find(TF_Graph *graph, char *name) {
  char *colon = strrchr(name, ':');
  TF_Output output;
  *colon = 0;
  output.oper = TF_GraphOperationByName(graph, name);
  output.index = atoi(colon + 1);
  if (!output.oper) {
    fprintf(stderr, "no operation %s\n", name);
    exit(1);
  }
  return output;
}

static TF_Tensor *read_file(const char *path) {
  int64_t batch = 1;
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, &batch, 1, sizeof(TF_TString));
  FILE *file = fopen(path, "rb");
  char *bytes;
  long size;
  if (!file) {
    perror(path);
    exit(1);
  }
  fseek(file, 0, SEEK_END);
  size = ftell(file);
  rewind(file);
  bytes = malloc(size);
  if (fread(bytes, 1, size, file) != (size_t)size) exit(1);
  fclose(file);
  TF_StringInit(TF_TensorData(tensor));
  TF_StringCopy(TF_TensorData(tensor), bytes, size);
  free(bytes);
  return tensor;
}

static void print_string(const TF_TString *text) {
  fwrite(TF_StringGetDataPointer(text), 1, TF_StringGetSize(text), stdout);
}

int main(int count, char **arguments) {
  enum { CLASSES, NAMES, PROBABILITIES, ERROR, OUTPUTS };
  const char *tags[] = {"serve"};
  TF_Graph *graph = TF_NewGraph();
  TF_Session *session;
  TF_Output input, outputs[OUTPUTS];
  int i, k;

  status = TF_NewStatus();
  session = TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, arguments[1], tags, 1,
                                         graph, NULL, status);
  check("load");
  input = find(graph, arguments[2]);
  for (i = 0; i < OUTPUTS; i++) outputs[i] = find(graph, arguments[3 + i]);

  for (i = 3 + OUTPUTS; i < count; i++) {
    TF_Tensor *image = read_file(arguments[i]), *found[OUTPUTS];
    TF_SessionRun(session, NULL, &input, &image, 1, outputs, found, OUTPUTS, NULL, 0, NULL,
                  status);
    check(arguments[i]);
    print_string(TF_TensorData(found[ERROR]));
    for (k = 0; k < TF_Dim(found[CLASSES], 1); k++) {
      printf("\t%" PRId64 " ", ((int64_t *)TF_TensorData(found[CLASSES]))[k]);
      print_string((TF_TString *)TF_TensorData(found[NAMES]) + k);
      printf(" %.9g", ((float *)TF_TensorData(found[PROBABILITIES]))[k]);
    }
    printf("\n");
    TF_StringDealloc(TF_TensorData(image));
    TF_DeleteTensor(image);
    for (k = 0; k < OUTPUTS; k++) TF_DeleteTensor(found[k]);
  }
  TF_DeleteSession(session, status);
  check("close");
  return 0;
}
