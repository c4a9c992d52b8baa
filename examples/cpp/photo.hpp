// Photos as RGB: PPM (P6) always, JPEG where libjpeg is. A JPEG's EXIF orientation is not applied.
#pragma once

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef HAVE_JPEG
#include <jpeglib.h>
#endif

struct Photo {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // row by row
};

inline Photo read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  Photo photo;
  int most = 0;
  if (!(file >> magic >> photo.width >> photo.height >> most) || magic != "P6" || most != 255 ||
      photo.width < 1 || photo.height < 1) {
    throw std::runtime_error(path + " is not a binary PPM (P6, 255) without comments");
  }
  file.get();
  photo.rgb.resize(size_t(3) * photo.width * photo.height);
  if (!file.read(reinterpret_cast<char*>(photo.rgb.data()), std::streamsize(photo.rgb.size()))) {
    throw std::runtime_error(path + " is truncated");
  }
  return photo;
}

#ifdef HAVE_JPEG
inline Photo read_jpeg(const std::string& path, std::FILE* file) {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr) { throw std::runtime_error("the JPEG is damaged"); };
  jpeg_create_decompress(&jpeg);
  Photo photo;
  try {
    jpeg_stdio_src(&jpeg, file);
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    photo.width = int(jpeg.output_width);
    photo.height = int(jpeg.output_height);
    photo.rgb.resize(size_t(3) * photo.width * photo.height);
    while (jpeg.output_scanline < jpeg.output_height) {
      JSAMPROW row = photo.rgb.data() + size_t(3) * photo.width * jpeg.output_scanline;
      jpeg_read_scanlines(&jpeg, &row, 1);
    }
  } catch (const std::exception& error) {
    jpeg_destroy_decompress(&jpeg);
    throw std::runtime_error(path + ": " + error.what());
  }
  jpeg_destroy_decompress(&jpeg);
  return photo;
}
#endif

// JPEG or PPM, by its first bytes; a file that cannot be read passes, for read_photo to say so.
inline bool is_photo(const std::string& path) {
  if (path.rfind("camera:", 0) == 0 || path.find("://") != std::string::npos) return false;
  std::ifstream file(path, std::ios::binary);
  const int first = file.get(), second = file.get();
  return !file || (first == 0xFF && second == 0xD8) || (first == 'P' && second == '6');
}

inline Photo read_photo(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) throw std::runtime_error("cannot read " + path);
  const bool jpeg = std::fgetc(file) == 0xFF;
  std::rewind(file);
#ifdef HAVE_JPEG
  if (jpeg) {
    try {
      Photo photo = read_jpeg(path, file);
      std::fclose(file);
      return photo;
    } catch (...) {
      std::fclose(file);
      throw;
    }
  }
#endif
  std::fclose(file);
  if (jpeg) throw std::runtime_error("built without libjpeg: convert " + path + " to PPM");
  return read_ppm(path);
}
